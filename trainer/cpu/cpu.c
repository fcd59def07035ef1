/* The CPU back end: the table of op.h over vectorised kernels, OpenBLAS and a small pool of
 * threads. */
#include "trainer/cpu/cpu.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/mem.h"
#include "trainer/cpu/blas.h"
#include "trainer/cpu/pool.h"
#include "trainer/fp8.h"

#define ALIGNMENT    64
#define FLOATS_PAYS  32768 /* a share of a loop smaller than this is not worth waking a thread */
#define COLUMN_SHARE 64    /* column kernels are cut at multiples of this */

const struct kernels *cpu_kernels;

/* ---- memory. Large blocks come zeroed from the kernel and take no room until touched. They ask
 * for huge pages, since products walk over much memory. */

#define HUGE_PAGE ((uintptr_t)2 << 20)

static void prefer_huge_pages(char *p, size_t bytes)
{
    uintptr_t first = ((uintptr_t)p + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t last = ((uintptr_t)p + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (last > first) {
        (void)madvise(p + (first - (uintptr_t)p), last - first, MADV_HUGEPAGE); /* a wish */
    }
}

static void *cpu_alloc(size_t bytes)
{
    char *block = mem_alloc(bytes + ALIGNMENT + sizeof(void *));
    uintptr_t start = (uintptr_t)block + sizeof(void *);
    char *p = block + sizeof(void *) + (ALIGNMENT - start % ALIGNMENT) % ALIGNMENT;
    memcpy(p - sizeof(void *), &block, sizeof block);
    prefer_huge_pages(p, bytes);
    return p;
}

static void cpu_release(void *p)
{
    if (p != NULL) {
        void *block;
        memcpy(&block, (char *)p - sizeof(void *), sizeof block);
        free(block);
    }
}

static void copy_to_host(void *host, const void *p, size_t bytes)
{
    memcpy(host, p, bytes);
}

static void copy_from_host(void *p, const void *host, size_t bytes)
{
    memcpy(p, host, bytes);
}

/* ---- sharing out a kernel's items */

struct share {
    kernel *fn;
    const void *args;
    size_t items, shares, step;
};

static void run_share(void *ctx, size_t task, size_t worker)
{
    (void)worker;
    const struct share *s = ctx;
    size_t steps = (s->items + s->step - 1) / s->step;
    size_t first = steps * task / s->shares * s->step;
    size_t last = steps * (task + 1) / s->shares * s->step;
    last = last < s->items ? last : s->items;
    if (first < last) {
        s->fn(s->args, first, last);
    }
}

static void run_steps(kernel *fn, const void *args, size_t items, size_t floats, size_t step)
{
    size_t shares = items * floats / FLOATS_PAYS, threads = (size_t)pool_threads();
    shares = shares < threads ? shares : threads;
    if (shares <= 1) {
        fn(args, 0, items);
        return;
    }
    struct share s = {fn, args, items, shares, step};
    pool_run(run_share, &s, shares);
}

void cpu_run(kernel *fn, const void *args, size_t items, size_t floats)
{
    run_steps(fn, args, items, floats, 1);
}

/* ---- the table's functions that are one kernel each */

static double sum_squares(const float *x, size_t count)
{
    return cpu_kernels->sum_squares(x, count);
}

static double sum(const float *x, size_t count)
{
    return cpu_kernels->sum(x, count);
}

static void scale(float *x, float factor, size_t count)
{
    cpu_kernels->scale(x, factor, count);
}

static void adamw(float *weight, float *m, float *v, const float *grad, size_t count,
                  float grad_scale, float lr, double beta1, double beta2, float eps,
                  float weight_decay, float correction1, float correction2)
{
    struct adamw_args args = {weight, m,     v,   grad,         grad_scale,  lr,
                              beta1,  beta2, eps, weight_decay, correction1, correction2};
    run_steps(cpu_kernels->adamw, &args, count, 1, 16);
}

static void copy(struct mat x, struct mat y)
{
    for (size_t r = 0; r < y.rows; r++) {
        memmove(y.data + r * y.ld, x.data + r * x.ld, y.cols * sizeof *y.data);
    }
}

static void zero(struct mat y)
{
    for (size_t r = 0; r < y.rows; r++) {
        memset(y.data + r * y.ld, 0, y.cols * sizeof *y.data);
    }
}

static void add(struct mat x, struct mat y, struct mat out)
{
    struct add_args args = {x, y, out};
    cpu_run(cpu_kernels->add, &args, out.rows, out.cols);
}

static kernel *column_kernel(enum op_format format)
{
    return format == OP_FP8_COL        ? cpu_kernels->fp8_col
           : format == OP_FP8_COL_POW2 ? cpu_kernels->fp8_col_pow2
                                       : cpu_kernels->e5m6_col;
}

static void quantise(enum op_format format, struct op_groups groups, struct mat x, struct mat y)
{
    struct quantise_args args = {x, y};
    switch (format) {
    case OP_F32:
        if (x.data != y.data) {
            copy(x, y);
        }
        break;
    case OP_BF16:
        cpu_run(cpu_kernels->bf16, &args, x.rows, x.cols);
        break;
    case OP_FP8_ROW:
        cpu_run(cpu_kernels->fp8_row, &args, x.rows, x.cols);
        break;
    case OP_FP8_ROW_POW2:
        cpu_run(cpu_kernels->fp8_row_pow2, &args, x.rows, x.cols);
        break;
    case OP_E5M6_ROW:
        cpu_run(cpu_kernels->e5m6_row, &args, x.rows, x.cols);
        break;
    case OP_FP8_COL:
    case OP_FP8_COL_POW2:
    case OP_E5M6_COL:
        for (size_t g = 0; g < groups.count; g++) {
            size_t first = groups.offset[g], rows = groups.offset[g + 1] - first;
            args.x = mat_rows(x, first, rows);
            args.y = mat_rows(y, first, rows);
            run_steps(column_kernel(format), &args, x.cols, rows, COLUMN_SHARE);
        }
        break;
    case OP_FP8_BLOCK:
        cpu_run(cpu_kernels->fp8_block, &args, (x.rows + FP8_TILE - 1) / FP8_TILE,
                x.cols * FP8_TILE);
        break;
    }
}

static void pack(enum op_format format, struct mat x, struct mat packed)
{
    const struct quantise_args args = {x, packed};
    kernel *fn = format == OP_BF16           ? cpu_kernels->pack_bf16
                 : format == OP_FP8_ROW      ? cpu_kernels->pack_fp8
                 : format == OP_FP8_ROW_POW2 ? cpu_kernels->pack_fp8_pow2
                                             : cpu_kernels->pack_e5m6;
    cpu_run(fn, &args, x.rows, x.cols);
}

static void unpack(enum op_format format, struct mat packed, struct mat y)
{
    const struct quantise_args args = {packed, y};
    kernel *fn = format == OP_BF16           ? cpu_kernels->unpack_bf16
                 : format == OP_FP8_ROW      ? cpu_kernels->unpack_fp8
                 : format == OP_FP8_ROW_POW2 ? cpu_kernels->unpack_fp8_pow2
                                             : cpu_kernels->unpack_e5m6;
    cpu_run(fn, &args, y.rows, y.cols);
}

static void embed(const int32_t *token, const float *table, struct mat y)
{
    for (size_t r = 0; r < y.rows; r++) {
        memcpy(y.data + r * y.ld, table + (size_t)token[r] * y.cols, y.cols * sizeof *table);
    }
}

static void embed_backward(const int32_t *token, struct mat dy, float alpha, float *dtable)
{
    struct embed_args args = {token, dy, alpha, dtable};
    run_steps(cpu_kernels->embed_backward, &args, dy.cols, dy.rows, COLUMN_SHARE);
}

static void rmsnorm(struct mat x, const float *w, float eps, struct mat y, float *rstd)
{
    struct norm_args args = {x, y, w, rstd, eps};
    cpu_run(cpu_kernels->norm, &args, x.rows, x.cols);
}

static void rmsnorm_backward(struct mat x, const float *w, const float *rstd, struct mat dy,
                             struct mat dx, bool accumulate, float alpha, float *dw)
{
    struct norm_backward_args args = {x, dy, dx, w, rstd, dw, alpha, accumulate};
    run_steps(cpu_kernels->norm_dw, &args, x.cols, x.rows, COLUMN_SHARE);
    cpu_run(cpu_kernels->norm_dx, &args, x.rows, x.cols);
}

struct rope_args {
    struct op_heads x;
    size_t seq, heads, dim;
    const float *table;
    bool inverse;
};

/* Not among the vectorised kernels: for this one pattern gcc 12 makes fused multiply-adds even
 * where it was told not to, and the instruction sets would differ. */
static void rotate(const void *args, size_t first, size_t last)
{
    const struct rope_args *a = args;
    float sign = a->inverse ? -1.0f : 1.0f;
    for (size_t t = first; t < last; t++) {
        const float *table = a->table + t % a->seq * a->dim;
        for (size_t h = 0; h < a->heads; h++) {
            float *x = a->x.data + t * a->x.row + h * a->x.head;
            for (size_t i = 0; i < a->dim; i += 2) {
                float c = table[i], s = sign * table[i + 1];
                float even = x[i] * c - x[i + 1] * s;
                float odd = x[i] * s + x[i + 1] * c;
                x[i] = even;
                x[i + 1] = odd;
            }
        }
    }
}

static void rope(struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
                 const float *table, bool inverse)
{
    struct rope_args args = {x, seq, heads, dim, table, inverse};
    cpu_run(rotate, &args, rows, heads * dim);
}

static void keys(struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads,
                 struct op_heads k)
{
    struct keys_args args = {nope, k, nope_dim, heads, shared};
    cpu_run(cpu_kernels->keys, &args, shared.rows, heads * (nope_dim + shared.cols));
}

static void keys_backward(struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim,
                          struct mat dshared)
{
    struct keys_args args = {dnope, dk, nope_dim, heads, dshared};
    cpu_run(cpu_kernels->keys_backward, &args, dshared.rows, heads * (nope_dim + dshared.cols));
}

static void swiglu(struct mat gu, struct mat out)
{
    struct swiglu_args args = {.gu = gu, .out = out};
    cpu_run(cpu_kernels->swiglu, &args, out.rows, out.cols * 4);
}

static void swiglu_backward(struct mat gu, struct mat dout, struct mat dgu, struct mat out)
{
    struct swiglu_args args = {gu, out, dout, dgu};
    cpu_run(cpu_kernels->swiglu_backward, &args, out.rows, out.cols * 4);
}

static void gather(struct mat x, const uint32_t *index, struct mat y)
{
    for (size_t r = 0; r < y.rows; r++) {
        memcpy(y.data + r * y.ld, x.data + index[r] * x.ld, y.cols * sizeof *y.data);
    }
}

static void combine(struct mat y, const uint32_t *place, const float *weight, size_t top_k,
                    struct mat out)
{
    struct combine_args args = {
        .y = y, .out = out, .place = place, .weight = weight, .top_k = top_k};
    cpu_run(cpu_kernels->combine, &args, out.rows, out.cols * top_k);
}

static void combine_backward(struct mat dout, struct mat y, const uint32_t *place,
                             const float *weight, size_t top_k, struct mat dy, float *dweight)
{
    struct combine_args args = {y, dout, place, weight, top_k, dy, dweight};
    cpu_run(cpu_kernels->combine_backward, &args, dout.rows, dout.cols * top_k);
}

static void cross_entropy(struct mat logits, const int32_t *target, float gradient, float *loss)
{
    struct loss_args args = {logits, target, gradient, loss};
    cpu_run(cpu_kernels->cross_entropy, &args, logits.rows, logits.cols * 4);
}

static const struct op_table table = {
    .name = "cpu",
    .alloc = cpu_alloc,
    .release = cpu_release,
    .copy_to_host = copy_to_host,
    .copy_from_host = copy_from_host,
    .sum_squares = sum_squares,
    .sum = sum,
    .scale = scale,
    .adamw = adamw,
    .copy = copy,
    .zero = zero,
    .add = add,
    .quantise = quantise,
    .pack = pack,
    .unpack = unpack,
    .linear = cpu_linear,
    .linear_dx = cpu_linear_dx,
    .linear_dw = cpu_linear_dw,
    .embed = embed,
    .embed_backward = embed_backward,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .rope = rope,
    .keys = keys,
    .keys_backward = keys_backward,
    .attention_scratch = cpu_attention_scratch,
    .attention = cpu_attention,
    .attention_backward = cpu_attention_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .router = cpu_router,
    .router_backward = cpu_router_backward,
    .balance = cpu_balance,
    .gather = gather,
    .combine = combine,
    .combine_backward = combine_backward,
    .cross_entropy = cross_entropy,
};

const struct op_table *op_cpu(int threads)
{
    blas_load();
    cpu_kernels = kernels_best();
    pool_resize(threads);
    return &table;
}
