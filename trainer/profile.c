/* One row an operation; products have one for each shape of weights. FLOP are those of the
 * definition (a causal score counts, a masked one does not); bytes are the operands once each,
 * which is what must move when nothing is in the cache. */
#include "trainer/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/clock.h"

#define ROWS_MAX 128

struct row {
    const char *op;
    size_t groups, n, k; /* 0: not a product */
    uint64_t calls;
    int64_t ns;
    double flop, bytes;
    double best; /* FLOP a ns of the fastest call: on a busy machine the one that was left alone */
};

static struct {
    const struct op_table *op;
    struct row row[ROWS_MAX];
    size_t rows;
    uint64_t steps, seen;
    int64_t step_ns;
} profile;

struct work {
    const char *op;
    size_t groups, n, k;
    double flop, bytes;
    int64_t began;
};

static struct row *row_of(const struct work *w)
{
    for (size_t i = 0; i < profile.rows; i++) {
        struct row *r = &profile.row[i];
        if (r->op == w->op && r->groups == w->groups && r->n == w->n && r->k == w->k) {
            return r;
        }
    }
    if (profile.rows == ROWS_MAX) {
        return &profile.row[ROWS_MAX - 1]; /* the others */
    }
    struct row *r = &profile.row[profile.rows++];
    *r = profile.rows < ROWS_MAX
             ? (struct row){.op = w->op, .groups = w->groups, .n = w->n, .k = w->k}
             : (struct row){.op = "others"};
    return r;
}

static void done(const struct work *w)
{
    struct row *r = row_of(w);
    int64_t ns = clock_boot_ns() - w->began;
    double rate = w->flop / (double)(ns > 0 ? ns : 1);
    r->ns += ns;
    r->best = rate > r->best ? rate : r->best;
    r->calls++;
    r->flop += w->flop;
    r->bytes += w->bytes;
}

/* ---- how much work it is: FLOP and bytes */

static double cells(struct mat m)
{
    return (double)m.rows * (double)m.cols;
}

static struct work simple(const char *op, double flop, double floats)
{
    return (struct work){
        .op = op, .flop = flop, .bytes = floats * sizeof(float), .began = clock_boot_ns()};
}

static struct work product(const char *op, struct op_groups groups, struct mat y, struct mat x)
{
    size_t rows = groups.offset[groups.count] - groups.offset[0];
    double weights = (double)groups.count * (double)y.cols * (double)x.cols;
    struct work w = simple(op, 2.0 * (double)rows * (double)y.cols * (double)x.cols,
                           weights + (double)rows * (double)(y.cols + x.cols));
    w.groups = groups.count;
    w.n = y.cols;
    w.k = x.cols;
    return w;
}

/* products: of each score's with q, k, v and their gradients, forward 1 of qk and 1 of v columns.
 */
static struct work attention(const char *op, const struct op_attention *a, double qk_products,
                             double v_products, double tensors)
{
    double heads = (double)a->batch * (double)a->heads, seq = (double)a->seq;
    double scores = heads * seq * (seq + 1) / 2;
    return simple(op, 2 * scores * (qk_products * (double)a->qk + v_products * (double)a->v),
                  tensors * heads * seq * (double)(a->qk + a->v));
}

/* ---- the operations */

#define TIMED(amount, call)                                                                        \
    struct work w = amount;                                                                        \
    profile.op->call;                                                                              \
    done(&w)

static double sum_squares(const float *x, size_t count)
{
    struct work w = simple("sum_squares", 2.0 * (double)count, (double)count);
    double sum = profile.op->sum_squares(x, count);
    done(&w);
    return sum;
}

static double sum(const float *x, size_t count)
{
    struct work w = simple("sum", (double)count, (double)count);
    double total = profile.op->sum(x, count);
    done(&w);
    return total;
}

static void scale(float *x, float factor, size_t count)
{
    TIMED(simple("scale", (double)count, 2.0 * (double)count), scale(x, factor, count));
}

static void adamw(float *weight, float *m, float *v, const float *grad, size_t count,
                  float grad_scale, float lr, double beta1, double beta2, float eps,
                  float weight_decay, float correction1, float correction2)
{
    TIMED(simple("adamw", 16.0 * (double)count, 7.0 * (double)count),
          adamw(weight, m, v, grad, count, grad_scale, lr, beta1, beta2, eps, weight_decay,
                correction1, correction2));
}

static void copy(struct mat x, struct mat y)
{
    TIMED(simple("copy", 0, 2 * cells(y)), copy(x, y));
}

static void zero(struct mat y)
{
    TIMED(simple("zero", 0, cells(y)), zero(y));
}

static void add(struct mat x, struct mat y, struct mat out)
{
    TIMED(simple("add", cells(out), 3 * cells(out)), add(x, y, out));
}

static void quantise(enum op_format format, struct op_groups groups, struct mat x, struct mat y)
{
    static const char *const name[] = {[OP_F32] = "quantise f32",
                                       [OP_BF16] = "quantise bf16",
                                       [OP_FP8_ROW] = "quantise fp8 row",
                                       [OP_FP8_COL] = "quantise fp8 col",
                                       [OP_FP8_BLOCK] = "quantise fp8 block",
                                       [OP_E5M6_ROW] = "quantise e5m6 row",
                                       [OP_E5M6_COL] = "quantise e5m6 col"};
    size_t i = (size_t)format, known = sizeof name / sizeof name[0];
    TIMED(simple(i < known && name[i] != NULL ? name[i] : "quantise", 0, 2 * cells(x)),
          quantise(format, groups, x, y));
}

static void pack(enum op_format format, struct mat x, struct mat packed)
{
    TIMED(simple("pack", 0, cells(x) + cells(packed)), pack(format, x, packed));
}

static void unpack(enum op_format format, struct mat packed, struct mat y)
{
    TIMED(simple("unpack", 0, cells(y) + cells(packed)), unpack(format, packed, y));
}

static void linear(struct op_groups groups, struct mat x, const float *weight, struct mat y)
{
    TIMED(product("linear", groups, y, x), linear(groups, x, weight, y));
}

static void linear_dx(struct op_groups groups, struct mat dy, const float *weight, struct mat dx,
                      bool accumulate)
{
    TIMED(product("linear_dx", groups, dy, dx), linear_dx(groups, dy, weight, dx, accumulate));
}

static void linear_dw(struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw)
{
    TIMED(product("linear_dw", groups, dy, x), linear_dw(groups, dy, x, alpha, dw));
}

static void embed(const int32_t *token, const float *weights, struct mat y)
{
    TIMED(simple("embed", 0, 2 * cells(y)), embed(token, weights, y));
}

static void embed_backward(const int32_t *token, struct mat dy, float alpha, float *dtable)
{
    TIMED(simple("embed_backward", 2 * cells(dy), 3 * cells(dy)),
          embed_backward(token, dy, alpha, dtable));
}

static void rmsnorm(struct mat x, const float *weight, float eps, struct mat y, float *rstd)
{
    TIMED(simple("rmsnorm", 4 * cells(x), 2 * cells(x)), rmsnorm(x, weight, eps, y, rstd));
}

static void rmsnorm_backward(struct mat x, const float *weight, const float *rstd, struct mat dy,
                             struct mat dx, bool accumulate, float alpha, float *dw)
{
    TIMED(simple("rmsnorm_backward", 10 * cells(x), 3 * cells(x)),
          rmsnorm_backward(x, weight, rstd, dy, dx, accumulate, alpha, dw));
}

static void rope(struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
                 const float *table, bool inverse)
{
    double count = (double)rows * (double)heads * (double)dim;
    TIMED(simple("rope", 3 * count, 2 * count), rope(x, rows, seq, heads, dim, table, inverse));
}

static void keys(struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads,
                 struct op_heads k)
{
    double count = (double)shared.rows * (double)heads * (double)(nope_dim + shared.cols);
    TIMED(simple("keys", 0, 2 * count), keys(nope, nope_dim, shared, heads, k));
}

static void keys_backward(struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim,
                          struct mat dshared)
{
    double count = (double)dshared.rows * (double)heads * (double)(nope_dim + dshared.cols);
    TIMED(simple("keys_backward", 0, 2 * count),
          keys_backward(dk, heads, dnope, nope_dim, dshared));
}

static size_t attention_scratch(const struct op_attention *a)
{
    return profile.op->attention_scratch(a);
}

static void attention_forward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                              struct op_heads v, struct op_heads out, float *lse, float *scratch)
{
    TIMED(attention("attention", a, 1, 1, 2), attention(a, q, k, v, out, lse, scratch));
}

static void attention_backward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                               struct op_heads v, struct op_heads out, const float *lse,
                               struct op_heads dout, struct op_heads dq, struct op_heads dk,
                               struct op_heads dv, float *scratch)
{
    TIMED(attention("attention_backward", a, 3, 2, 4),
          attention_backward(a, q, k, v, out, lse, dout, dq, dk, dv, scratch));
}

static void swiglu(struct mat gu, struct mat out)
{
    TIMED(simple("swiglu", 4 * cells(out), 3 * cells(out)), swiglu(gu, out));
}

static void swiglu_backward(struct mat gu, struct mat dout, struct mat dgu, struct mat out)
{
    TIMED(simple("swiglu_backward", 10 * cells(out), 6 * cells(out)),
          swiglu_backward(gu, dout, dgu, out));
}

static void router(const struct op_router *r, struct mat logits, const float *bias,
                   struct mat scores, int32_t *expert, float *weight)
{
    TIMED(simple("router", 0, 2 * cells(logits)), router(r, logits, bias, scores, expert, weight));
}

static void router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                            const float *dweight, size_t seq, float balance_scale,
                            const float *fraction, struct mat dlogits)
{
    TIMED(simple("router_backward", 0, 2 * cells(scores)),
          router_backward(r, scores, expert, dweight, seq, balance_scale, fraction, dlogits));
}

static void balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                    float *loss)
{
    TIMED(simple("balance", 0, cells(scores)), balance(r, scores, seq, fraction, loss));
}

static void gather(struct mat x, const uint32_t *index, struct mat y)
{
    TIMED(simple("gather", 0, 2 * cells(y)), gather(x, index, y));
}

static void combine(struct mat y, const uint32_t *place, const float *weight, size_t top_k,
                    struct mat out)
{
    double pairs = (double)top_k * cells(out);
    TIMED(simple("combine", 2 * pairs, pairs + 2 * cells(out)),
          combine(y, place, weight, top_k, out));
}

static void combine_backward(struct mat dout, struct mat y, const uint32_t *place,
                             const float *weight, size_t top_k, struct mat dy, float *dweight)
{
    double pairs = (double)top_k * cells(dout);
    TIMED(simple("combine_backward", 3 * pairs, 2 * pairs + cells(dout)),
          combine_backward(dout, y, place, weight, top_k, dy, dweight));
}

static void cross_entropy(struct mat logits, const int32_t *target, float gradient, float *loss)
{
    TIMED(simple("cross_entropy", 5 * cells(logits), 2 * cells(logits)),
          cross_entropy(logits, target, gradient, loss));
}

/* ---- */

bool profile_wanted(void)
{
    const char *text = getenv("DS_PROFILE");
    return text != NULL && text[0] != 0 && strcmp(text, "0") != 0;
}

const struct op_table *profile_wrap(const struct op_table *op)
{
    static struct op_table table;
    profile.op = op;
    table = *op; /* an operation that is not below goes there unseen */
    table.sum_squares = sum_squares;
    table.sum = sum;
    table.scale = scale;
    table.adamw = adamw;
    table.copy = copy;
    table.zero = zero;
    table.add = add;
    table.quantise = quantise;
    table.pack = op->pack != NULL ? pack : NULL;
    table.unpack = op->unpack != NULL ? unpack : NULL;
    table.linear = linear;
    table.linear_dx = linear_dx;
    table.linear_dw = linear_dw;
    table.embed = embed;
    table.embed_backward = embed_backward;
    table.rmsnorm = rmsnorm;
    table.rmsnorm_backward = rmsnorm_backward;
    table.rope = rope;
    table.keys = keys;
    table.keys_backward = keys_backward;
    table.attention_scratch = attention_scratch;
    table.attention = attention_forward;
    table.attention_backward = attention_backward;
    table.swiglu = swiglu;
    table.swiglu_backward = swiglu_backward;
    table.router = router;
    table.router_backward = router_backward;
    table.balance = balance;
    table.gather = gather;
    table.combine = combine;
    table.combine_backward = combine_backward;
    table.cross_entropy = cross_entropy;
    return &table;
}

void profile_step(int64_t ns)
{
    if (profile.op == NULL) {
        return;
    }
    if (profile.seen++ == 0) {
        profile.rows = 0;
        return;
    }
    profile.steps++;
    profile.step_ns += ns;
}

static int by_time(const void *a, const void *b)
{
    const struct row *x = a;
    const struct row *y = b;
    return (y->ns > x->ns) - (y->ns < x->ns);
}

static void print_row(const char *name, const struct row *r)
{
    double steps = (double)profile.steps, seconds = (double)r->ns / 1e9;
    fprintf(stderr, "%-44s %8.1f %9.2f %5.1f%%", name, (double)r->calls / steps,
            1e3 * seconds / steps, 100 * (double)r->ns / (double)profile.step_ns);
    if (seconds > 0 && r->calls > 0) {
        fprintf(stderr, " %8.1f %7.1f", r->flop / seconds / 1e9, r->bytes / seconds / 1e9);
    }
    fputc('\n', stderr);
}

void profile_print(void)
{
    if (profile.steps == 0) {
        return;
    }
    struct row products = {0}, rest = {.ns = profile.step_ns};
    double best_ns = 0;
    char name[64];
    qsort(profile.row, profile.rows, sizeof profile.row[0], by_time);
    fprintf(stderr, "\n%-44s %8s %9s %6s %8s %7s\n", "operation", "calls", "ms/step", "share",
            "GFLOP/s", "GB/s");
    for (size_t i = 0; i < profile.rows; i++) {
        const struct row *r = &profile.row[i];
        rest.ns -= r->ns;
        snprintf(name, sizeof name, "%s", r->op);
        if (r->groups > 0) {
            snprintf(name, sizeof name, "%s %zu x [%zu, %zu]", r->op, r->groups, r->n, r->k);
            products.calls += r->calls;
            products.ns += r->ns;
            products.flop += r->flop;
            products.bytes += r->bytes;
            best_ns += r->best > 0 ? r->flop / r->best : 0;
        }
        print_row(name, r);
    }
    print_row("between operations", &rest);
    print_row("all products with weights", &products);
    products.ns = (int64_t)best_ns;
    print_row("the same, each at the pace of its best call", &products);
    fprintf(stderr, "%.1f ms a step, mean of %llu\n",
            (double)profile.step_ns / 1e6 / (double)profile.steps,
            (unsigned long long)profile.steps);
}

uint64_t profile_memory_peak(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}
