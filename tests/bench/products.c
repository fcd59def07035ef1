/* products MODEL.json BATCH SEQUENCE: every product with weights of one training step (y = x w^T,
 * dx = dy w, dw = dy^T x; experts evenly loaded) as the CPU back end does it, one thread, beside
 * what the same library does with square matrices. Both take turns and are timed by the processor
 * time of the thread, so that neighbours on the machine weigh little. FLOP a step over the sum of
 * the products' median times; the peak is the best square call. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "proto/model_config.h"
#include "trainer/op.h"

#define TURNS        11
#define LOGITS       ((size_t)1 << 22) /* a chunk of the head: layer_head.c */
#define GROUPS_MAX   1024
#define SHAPES_MAX   16
#define PEAK_LARGEST 1536

struct shape {
    const char *name;
    size_t groups, rows, n, k, count; /* count: of them in a step */
    double time[3][TURNS];
};

static const struct op_table *op;
static struct shape shape[SHAPES_MAX];
static size_t shapes;
static float *x, *y, *w, *dw;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void add(const char *name, size_t groups, size_t rows, size_t n, size_t k, size_t count)
{
    if (count > 0 && n > 0 && k > 0) {
        shape[shapes++] = (struct shape){name, groups, rows, n, k, count, {{0}}};
    }
}

static void list(const struct model_config *c, size_t rows)
{
    size_t h = c->hidden_size, heads = c->num_attention_heads, layers = c->num_hidden_layers;
    size_t qk = c->qk_nope_head_dim + c->qk_rope_head_dim, q = heads * qk;
    size_t dense = c->n_routed_experts > 0 ? c->first_k_dense_replace : layers;
    size_t moe = layers - dense, width = c->moe_intermediate_size;
    size_t chunk = LOGITS / c->vocab_size;
    chunk = chunk < 64 ? 64 : chunk;
    chunk = chunk < rows ? chunk : rows;
    add("q_a, kv_a", 1, rows,
        (c->q_lora_rank > 0 ? c->q_lora_rank : q) + c->kv_lora_rank + c->qk_rope_head_dim, h,
        layers);
    add("q_b", 1, rows, q, c->q_lora_rank, layers);
    add("kv_b", 1, rows, heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank, layers);
    add("o", 1, rows, h, heads * c->v_head_dim, layers);
    add("gate_up", 1, rows, 2 * c->intermediate_size, h, dense);
    add("down", 1, rows, h, c->intermediate_size, dense);
    add("gate_up, shared", 1, rows, 2 * width * c->n_shared_experts, h, moe);
    add("down, shared", 1, rows, h, width * c->n_shared_experts, moe);
    add("gate_up, experts", c->n_routed_experts, rows * c->num_experts_per_tok, 2 * width, h, moe);
    add("down, experts", c->n_routed_experts, rows * c->num_experts_per_tok, h, width, moe);
    add("head", 1, chunk, c->vocab_size, h, rows / chunk);
}

static float *numbers(size_t count)
{
    float *p = op->alloc(count * sizeof *p);
    for (size_t i = 0; i < count; i++) {
        p[i] = (float)(i * 2654435761u % 1000) / 1000.0f - 0.5f;
    }
    return p;
}

static void allocate(void)
{
    size_t square = (size_t)PEAK_LARGEST * PEAK_LARGEST, xs = square, ys = square, ws = square;
    for (size_t i = 0; i < shapes; i++) {
        const struct shape *s = &shape[i];
        xs = s->rows * s->k > xs ? s->rows * s->k : xs;
        ys = s->rows * s->n > ys ? s->rows * s->n : ys;
        ws = s->groups * s->n * s->k > ws ? s->groups * s->n * s->k : ws;
    }
    x = numbers(xs), y = numbers(ys), w = numbers(ws), dw = numbers(ws);
}

static void run(struct shape *s, size_t turn)
{
    size_t offset[GROUPS_MAX + 1];
    for (size_t g = 0; g <= s->groups; g++) {
        offset[g] = s->rows * g / s->groups;
    }
    struct op_groups groups = {s->groups, offset};
    struct mat in = mat_of(x, s->rows, s->k), out = mat_of(y, s->rows, s->n);
    double t0 = now();
    op->linear(groups, in, w, out);
    double t1 = now();
    op->linear_dx(groups, out, w, in, false);
    double t2 = now();
    op->linear_dw(groups, out, in, 0.1f, dw);
    double t3 = now();
    s->time[0][turn] = t1 - t0;
    s->time[1][turn] = t2 - t1;
    s->time[2][turn] = t3 - t2;
}

/* GFLOP/s of one square product of each size, the best. */
static double square(void)
{
    double best = 0;
    for (size_t n = PEAK_LARGEST / 3; n <= PEAK_LARGEST; n += PEAK_LARGEST / 3) {
        size_t offset[2] = {0, n};
        double t = now();
        op->linear((struct op_groups){1, offset}, mat_of(x, n, n), w, mat_of(y, n, n));
        double rate = 2 * (double)n * (double)n * (double)n / (now() - t) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

static int ascending(const void *a, const void *b)
{
    const double *p = a, *q = b;
    return *p < *q ? -1 : *p > *q;
}

int main(int argc, char **argv)
{
    struct buf json = {0};
    struct model_config c;
    struct err err = {0};
    if (argc != 4 || file_read(argv[1], 1 << 20, &json, &err) != 0 ||
        model_config_parse(&c, buf_cstr(&json), json.len, argv[1], &err) != 0 ||
        c.n_routed_experts > GROUPS_MAX) {
        fprintf(stderr, "products MODEL.json BATCH SEQUENCE%s%s\n", err.text[0] ? ": " : "",
                err.text);
        return 64;
    }
    op = op_cpu(1);
    list(&c, strtoul(argv[2], NULL, 10) * strtoul(argv[3], NULL, 10));
    allocate();
    double peak = 0, flop = 0, seconds = 0;
    for (size_t turn = 0; turn < TURNS; turn++) {
        for (size_t i = 0; i < shapes; i++) {
            run(&shape[i], turn);
        }
        double rate = square();
        peak = rate > peak ? rate : peak;
    }
    printf("%-18s %6s %6s %6s %6s  GFLOP/s: %5s %5s %5s\n", "product", "groups", "rows", "n", "k",
           "y", "dx", "dw");
    for (size_t i = 0; i < shapes; i++) {
        struct shape *s = &shape[i];
        double work = 2 * (double)s->rows * (double)s->n * (double)s->k / 1e9;
        printf("%-18s %6zu %6zu %6zu %6zu          ", s->name, s->groups, s->rows, s->n, s->k);
        for (int way = 0; way < 3; way++) {
            qsort(s->time[way], TURNS, sizeof(double), ascending);
            double median = s->time[way][TURNS / 2];
            printf(" %5.0f", work / median);
            flop += work * (double)s->count;
            seconds += median * (double)s->count;
        }
        printf("\n");
    }
    printf("all of a step %.0f, peak %.0f GFLOP/s: %.0f %%\n", flop / seconds, peak,
           100 * flop / seconds / peak);
    op->release(x), op->release(y), op->release(w), op->release(dw);
    buf_fini(&json);
    return 0;
}
