/* op.h's table, every function, against the CPU back end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "trainer/fp8.h"

#define FP32  1e-5
#define BF16  1e-2
#define EXACT 0

static int32_t *tokens(size_t rows, size_t limit, int32_t **device)
{
    int32_t *t = mem_alloc_array(rows, sizeof *t);
    for (size_t i = 0; i < rows; i++) {
        t[i] = (int32_t)check_below(limit);
    }
    *device = upload(t, rows * sizeof *t);
    return t;
}

static void flat(void)
{
    size_t n = check_size(3000, 3000000);
    struct pair x = pair_dense(1, n);
    double cpu = check.cpu->sum_squares(x.cpu.data, n), gpu = check.gpu->sum_squares(x.gpu.data, n);
    check_true("sum_squares", fabs(cpu - gpu) <= 1e-12 * cpu);
    /* a sum is compared with the sum of magnitudes: it may cancel */
    cpu = check.cpu->sum(x.cpu.data + 1, n - 1);
    gpu = check.gpu->sum(x.gpu.data + 1, n - 1);
    check_true("sum", fabs(cpu - gpu) <= 1e-12 * (double)n);
    check.cpu->scale(x.cpu.data, 0.37f, n);
    check.gpu->scale(x.gpu.data, 0.37f, n);
    pair_check("scale", x, EXACT);
    struct pair w = pair_dense(1, n), m = pair_dense(1, n), v = pair_dense(1, n);
    for (size_t i = 0; i < n; i++) {
        v.cpu.data[i] *= v.cpu.data[i];
    }
    check.gpu->copy_from_host(v.gpu.data, v.cpu.data, n * sizeof(float));
    check.cpu->adamw(w.cpu.data, m.cpu.data, v.cpu.data, x.cpu.data, n, 0.5f, 1e-2f, 0.9, 0.95,
                     1e-8f, 0.1f, 0.1f, 0.05f);
    check.gpu->adamw(w.gpu.data, m.gpu.data, v.gpu.data, x.gpu.data, n, 0.5f, 1e-2f, 0.9, 0.95,
                     1e-8f, 0.1f, 0.1f, 0.05f);
    pair_check("adamw weight", w, FP32);
    pair_check("adamw m", m, FP32);
    pair_check("adamw v", v, FP32);
    pair_free(&x);
    pair_free(&w);
    pair_free(&m);
    pair_free(&v);
}

static void plain_rows(void)
{
    size_t rows = check_size(20, 2000), cols = check_size(300, 3000);
    struct pair x = pair_random(rows, cols), y = pair_random(rows, cols);
    struct pair out = pair_poisoned(rows, cols);
    check.cpu->add(x.cpu, y.cpu, out.cpu);
    check.gpu->add(x.gpu, y.gpu, out.gpu);
    pair_check("add", out, EXACT);
    check.cpu->copy(x.cpu, out.cpu);
    check.gpu->copy(x.gpu, out.gpu);
    pair_check("copy", out, EXACT);
    check.cpu->zero(out.cpu);
    check.gpu->zero(out.gpu);
    pair_check("zero", out, EXACT);
    pair_free(&x);
    pair_free(&y);
    pair_free(&out);
}

/* Ordinary numbers, and tiles of zeros, of tiny and of huge numbers, infinity and NaN. */
static void spoil(struct pair x)
{
    static const float scales[] = {0, 1e-30f, 1e-6f, 1, 1e4f, 1e30f};
    for (size_t i = 0; i < x.cpu.rows * x.cpu.cols; i++) {
        float *v = x.cpu.data + i / x.cpu.cols * x.cpu.ld + i % x.cpu.cols;
        *v *= scales[(i / 97 + i % x.cpu.cols / 64) % 6];
        *v = check_below(4000) == 0 ? INFINITY : check_below(4000) == 0 ? NAN : *v;
    }
    check.gpu->copy_from_host(x.gpu.data, x.cpu.data, x.floats * sizeof(float));
}

/* A NaN is a NaN: which one does not matter. */
static void same_nans(struct pair p)
{
    float *got = download(p.gpu.data, p.floats * sizeof *got);
    for (size_t i = 0; i < p.floats; i++) {
        bool inside = i % p.cpu.ld < p.cpu.cols;
        if (inside && isnan(got[i]) && isnan(p.cpu.data[i])) {
            got[i] = p.cpu.data[i];
        }
    }
    check.gpu->copy_from_host(p.gpu.data, got, p.floats * sizeof *got);
    free(got);
}

static void grids(void)
{
    static const struct {
        enum op_format format;
        const char *name;
    } formats[] = {{OP_F32, "quantise f32"},
                   {OP_BF16, "quantise bf16"},
                   {OP_FP8_ROW, "quantise fp8 row"},
                   {OP_FP8_COL, "quantise fp8 col"},
                   {OP_FP8_BLOCK, "quantise fp8 block"},
                   {OP_FP8_ROW_POW2, "quantise fp8 row pow2"},
                   {OP_FP8_COL_POW2, "quantise fp8 col pow2"},
                   {OP_E5M6_ROW, "quantise e5m6 row"},
                   {OP_E5M6_COL, "quantise e5m6 col"}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        size_t offset[6], rows = check_offsets(offset, 5, check.large ? 400 : 90);
        size_t cols = check_size(300, 3000);
        struct op_groups groups = {5, offset};
        struct pair x = pair_random(rows, cols), y = pair_poisoned(rows, cols);
        bool in_place = check_below(2) == 0;
        spoil(x);
        check.cpu->quantise(formats[i].format, groups, x.cpu, in_place ? x.cpu : y.cpu);
        check.gpu->quantise(formats[i].format, groups, x.gpu, in_place ? x.gpu : y.gpu);
        same_nans(in_place ? x : y);
        pair_check(formats[i].name, in_place ? x : y, EXACT);
        pair_free(&x);
        pair_free(&y);
    }
}

static void norms(void)
{
    size_t rows = check_size(12, 3000), cols = check_size(600, 8000);
    bool add = check_below(2) == 0;
    struct pair x = pair_random(rows, cols), w = pair_dense(1, cols), y = pair_poisoned(rows, cols);
    struct pair rstd = pair_poisoned(1, rows), dy = pair_random(rows, cols);
    struct pair dw = pair_dense(1, cols), dx = pair_random(rows, cols);
    check.cpu->rmsnorm(x.cpu, w.cpu.data, 1e-6f, y.cpu, rstd.cpu.data);
    check.gpu->rmsnorm(x.gpu, w.gpu.data, 1e-6f, y.gpu, rstd.gpu.data);
    pair_check("rmsnorm", y, FP32);
    pair_check("rmsnorm rstd", rstd, FP32);
    check.cpu->rmsnorm_backward(x.cpu, w.cpu.data, rstd.cpu.data, dy.cpu, dx.cpu, add, 0.7f,
                                dw.cpu.data);
    check.gpu->rmsnorm_backward(x.gpu, w.gpu.data, rstd.gpu.data, dy.gpu, dx.gpu, add, 0.7f,
                                dw.gpu.data);
    pair_check("rmsnorm dx", dx, FP32);
    pair_check("rmsnorm dw", dw, FP32);
    struct pair all[] = {x, w, y, rstd, dy, dw, dx};
    for (size_t i = 0; i < 7; i++) {
        pair_free(&all[i]);
    }
}

static void embeddings(void)
{
    size_t rows = check_size(600, 5000), cols = check_size(100, 1000);
    size_t vocabulary = 1 + check_below(40);
    int32_t *device, *host = tokens(rows, vocabulary, &device);
    struct pair table = pair_dense(vocabulary, cols), y = pair_poisoned(rows, cols);
    check.cpu->embed(host, table.cpu.data, y.cpu);
    check.gpu->embed(device, table.gpu.data, y.gpu);
    pair_check("embed", y, EXACT);
    struct pair dy = pair_random(rows, cols);
    check.cpu->embed_backward(host, dy.cpu, 0.3f, table.cpu.data);
    check.gpu->embed_backward(device, dy.gpu, 0.3f, table.gpu.data);
    pair_check("embed backward", table, FP32);
    pair_free(&table);
    pair_free(&y);
    pair_free(&dy);
    free(host);
    check.gpu->release(device);
}

static struct op_heads heads_of(struct mat m, size_t head)
{
    return (struct op_heads){m.data, m.ld, head};
}

static void positions(void)
{
    size_t seq = 1 + check_below(9), rows = seq * check_size(4, 400), heads = 1 + check_below(6);
    size_t nope = 1 + check_below(12), dim = 2 * (1 + check_below(12)), gap = check_below(3);
    struct pair table = pair_dense(seq, dim), shared = pair_random(rows, dim);
    struct pair from = pair_random(rows, heads * (nope + gap));
    struct pair k = pair_poisoned(rows, heads * (nope + dim));
    for (int inverse = 0; inverse < 2; inverse++) {
        check.cpu->rope(heads_of(shared.cpu, dim), rows, seq, 1, dim, table.cpu.data, inverse);
        check.gpu->rope(heads_of(shared.gpu, dim), rows, seq, 1, dim, table.gpu.data, inverse);
        pair_check("rope", shared, FP32);
    }
    check.cpu->keys(heads_of(from.cpu, nope + gap), nope, shared.cpu, heads,
                    heads_of(k.cpu, nope + dim));
    check.gpu->keys(heads_of(from.gpu, nope + gap), nope, shared.gpu, heads,
                    heads_of(k.gpu, nope + dim));
    pair_check("keys", k, FP32);
    check.cpu->keys_backward(heads_of(k.cpu, nope + dim), heads, heads_of(from.cpu, nope + gap),
                             nope, shared.cpu);
    check.gpu->keys_backward(heads_of(k.gpu, nope + dim), heads, heads_of(from.gpu, nope + gap),
                             nope, shared.gpu);
    pair_check("keys backward", from, FP32);
    pair_check("keys backward, shared", shared, FP32);
    pair_free(&table);
    pair_free(&shared);
    pair_free(&from);
    pair_free(&k);
}

static void attention(void)
{
    struct op_attention a = {.batch = 1 + check_below(3),
                             .seq = check_size(40, 300),
                             .heads = 1 + check_below(4),
                             .qk = 1 + check_below(24),
                             .v = 1 + check_below(24),
                             .scale = 0.3f,
                             .bf16 = check_below(2) == 0};
    size_t rows = a.batch * a.seq, wide = a.heads * a.qk, thin = a.heads * a.v;
    double bound = a.bf16 ? BF16 : 1e-4; /* a chain of products and exponentials */
    struct pair q = pair_random(rows, wide), k = pair_random(rows, wide),
                v = pair_random(rows, thin);
    struct pair out = pair_poisoned(rows, thin), lse = pair_poisoned(1, a.batch * a.heads * a.seq);
    struct pair dout = pair_random(rows, thin), dq = pair_poisoned(rows, wide);
    struct pair dk = pair_poisoned(rows, wide), dv = pair_poisoned(rows, thin);
    float *scratch[2];
    const struct op_table *op[2] = {check.cpu, check.gpu};
    for (int i = 0; i < 2; i++) {
#define AT(p, head) heads_of(i == 0 ? (p).cpu : (p).gpu, head)
        float *stats = i == 0 ? lse.cpu.data : lse.gpu.data;
        scratch[i] = op[i]->alloc(op[i]->attention_scratch(&a) * sizeof(float));
        op[i]->attention(&a, AT(q, a.qk), AT(k, a.qk), AT(v, a.v), AT(out, a.v), stats, scratch[i]);
        op[i]->attention_backward(&a, AT(q, a.qk), AT(k, a.qk), AT(v, a.v), AT(out, a.v), stats,
                                  AT(dout, a.v), AT(dq, a.qk), AT(dk, a.qk), AT(dv, a.v),
                                  scratch[i]);
        op[i]->release(scratch[i]);
    }
    pair_check("attention", out, bound);
    pair_check("attention lse", lse, FP32);
    pair_check("attention dq", dq, bound);
    pair_check("attention dk", dk, bound);
    pair_check("attention dv", dv, bound);
    struct pair all[] = {q, k, v, out, lse, dout, dq, dk, dv};
    for (size_t i = 0; i < 9; i++) {
        pair_free(&all[i]);
    }
}

static void swiglus(void)
{
    size_t rows = check_size(20, 2000), cols = check_size(300, 3000);
    struct pair gu = pair_random(rows, 2 * cols), out = pair_poisoned(rows, cols);
    struct pair dout = pair_random(rows, cols), dgu = pair_poisoned(rows, 2 * cols);
    check.cpu->swiglu(gu.cpu, out.cpu);
    check.gpu->swiglu(gu.gpu, out.gpu);
    pair_check("swiglu", out, FP32);
    check.cpu->swiglu_backward(gu.cpu, dout.cpu, dgu.cpu, out.cpu);
    check.gpu->swiglu_backward(gu.gpu, dout.gpu, dgu.gpu, out.gpu);
    pair_check("swiglu backward", dgu, FP32);
    pair_check("swiglu backward, out", out, FP32);
    pair_free(&gu);
    pair_free(&out);
    pair_free(&dout);
    pair_free(&dgu);
}

static void losses(void)
{
    size_t rows = check_size(20, 500), cols = check_size(600, 20000);
    int32_t *device, *host = tokens(rows, cols, &device);
    struct pair logits = pair_random(rows, cols), loss = pair_poisoned(1, rows);
    for (int i = 0; i < 2; i++) {
        float scale = i == 0 ? 0 : 0.25f;
        check.cpu->cross_entropy(logits.cpu, host, scale, loss.cpu.data);
        check.gpu->cross_entropy(logits.gpu, device, scale, loss.gpu.data);
        pair_check("cross_entropy", loss, FP32);
        if (i == 0) { /* without a gradient the logits may be left as anything */
            pair_free(&logits);
            logits = pair_random(rows, cols);
        } else {
            pair_check("cross_entropy, gradient", logits, FP32);
        }
    }
    pair_free(&logits);
    pair_free(&loss);
    free(host);
    check.gpu->release(device);
}

void check_ops(void)
{
    for (int trial = 0; trial < 6; trial++) {
        flat();
        plain_rows();
        grids();
        norms();
        embeddings();
        positions();
        attention();
        swiglus();
        losses();
    }
}
