/* bench_gpu: how close the kernels come to what this GPU can do. Two ceilings are measured first, a
 * large copy (bytes read and written) and a BF16 product of 8192^3; everything else is given as a
 * share of one of them. Times are medians of events around single launches, buffers take turns so
 * that inputs do not come out of the cache, numbers are random. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "lib/mem.h"
#include "tests/gpu/bench_model.h"
#include "tests/unit/random.h"
#include "trainer/cuda/driver.h"
#include "trainer/cuda/gemm.h"
#include "trainer/cuda/grouped.h"
#include "trainer/cuda/loss.h"
#include "trainer/cuda/norm.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/optimiser.h"
#include "trainer/cuda/permute.h"
#include "trainer/cuda/state.h"
#include "trainer/cuda/swiglu.h"
#include "trainer/cuda/tiles.h"
#include "trainer/half.h"

#define EXIT_NO_GPU 78
#define TIMES       20
#define ROWS        4096
#define HIDDEN      7168
#define MIB         ((size_t)1 << 20)

static double copy_rate, bf16_rate; /* bytes and FLOP a second */

static void must(int code, const char *what)
{
    state_check(code, what);
}

/* ---- memory full of random numbers */

static void *device(size_t bytes)
{
    void *p = NULL;
    must((int)cudaMalloc(&p, bytes), "allocate for the benchmark");
    return p;
}

/* A block of `unit` bytes, again and again. */
static void *repeated(const void *block, size_t unit, size_t bytes)
{
    char *p = device(bytes);
    for (size_t at = 0; at < bytes; at += unit) {
        size_t n = bytes - at < unit ? bytes - at : unit;
        must((int)cudaMemcpy(p + at, block, n, cudaMemcpyHostToDevice), "fill");
    }
    return p;
}

static uint16_t *bf16s(size_t count)
{
    static uint16_t block[2 << 20];
    for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
        block[i] = bf16_encode((float)((double)random_below(2000001) / 1e6 - 1));
    }
    return repeated(block, sizeof block, count * sizeof *block);
}

static float *floats(size_t count)
{
    static float block[1 << 20];
    for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
        block[i] = (float)((double)random_below(1000001) / 1e6 + 0.5);
    }
    return repeated(block, sizeof block, count * sizeof *block);
}

/* Codes of any number but NaN. */
static struct fp8_codes codes(size_t count, size_t scales)
{
    static uint8_t block[4 << 20];
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] = (uint8_t)random_below(256);
        block[i] = (block[i] & 0x7F) == 0x7F ? 0 : block[i];
    }
    return (struct fp8_codes){repeated(block, sizeof block, count), floats(scales)};
}

/* ---- time */

typedef void bench_fn(void *ctx, size_t turn);

static int by_size(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double seconds(bench_fn *fn, void *ctx)
{
    cudaEvent_t from, to;
    float ms[TIMES];
    must((int)cudaEventCreate(&from), "event");
    must((int)cudaEventCreate(&to), "event");
    for (size_t i = 0; i < 3; i++) {
        fn(ctx, i);
    }
    for (size_t i = 0; i < TIMES; i++) {
        must((int)cudaEventRecord(from, cuda_state.stream), "event");
        fn(ctx, i);
        must((int)cudaEventRecord(to, cuda_state.stream), "event");
        must((int)cudaEventSynchronize(to), "wait");
        must((int)cudaEventElapsedTime(&ms[i], from, to), "event");
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    qsort(ms, TIMES, sizeof *ms, by_size);
    return ms[TIMES / 2] / 1e3;
}

static void report_flops(const char *name, double flop, double s)
{
    printf("%-44s %9.1f us %8.0f TFLOP/s %6.2f of BF16 peak\n", name, s * 1e6, flop / s / 1e12,
           flop / s / bf16_rate);
}

static void report_bytes(const char *name, double bytes, double s)
{
    printf("%-44s %9.1f us %8.0f GB/s    %6.2f of copy\n", name, s * 1e6, bytes / s / 1e9,
           bytes / s / copy_rate);
}

/* ---- ceilings */

static void run_copy(void *ctx, size_t turn)
{
    char *p = ctx;
    (void)turn;
    must((int)cudaMemcpyAsync(p, p + 1024 * MIB, 1024 * MIB, cudaMemcpyDeviceToDevice,
                              cuda_state.stream),
         "copy");
}

static void run_gemm(void *ctx, size_t turn)
{
    (void)turn;
    must(gemm_run(ctx), "product");
}

static void ceilings(void)
{
    size_t n = 8192;
    void *p = bf16s(1024 * MIB);
    copy_rate = 2048.0 * (double)MIB / seconds(run_copy, p);
    must((int)cudaFree(p), "free");
    uint16_t *a = bf16s(n * n), *b = bf16s(n * n), *c = bf16s(n * n);
    struct gemm g = {.type = GEMM_BF16,
                     .c_type = GEMM_BF16,
                     .m = n,
                     .n = n,
                     .k = n,
                     .batch = 1,
                     .alpha = 1,
                     .a = {.data = a, .ld = n},
                     .b = {.data = b, .ld = n, .transposed = true},
                     .c = c,
                     .ldc = n};
    bf16_rate = 2.0 * (double)n * (double)n * (double)n / seconds(run_gemm, &g);
    printf("copy %.0f GB/s, BF16 product %.0f TFLOP/s\n", copy_rate / 1e9, bf16_rate / 1e12);
    void *all[] = {a, b, c};
    for (size_t i = 0; i < 3; i++) {
        must((int)cudaFree(all[i]), "free");
    }
}

/* ---- products */

static void dense(size_t m, size_t n, size_t k, bool wgrad)
{
    char name[64];
    struct fp8_codes a = codes(m * k, (k + 127) / 128 * m);
    struct fp8_codes b = codes(n * k, (k + 127) / 128 * n + block_scale_pitch(k) * (n / 128 + 1));
    void *c = wgrad ? (void *)floats(m * n) : (void *)bf16s(m * n);
    struct gemm g = {.type = GEMM_FP8,
                     .c_type = wgrad ? GEMM_F32 : GEMM_BF16,
                     .m = m,
                     .n = n,
                     .k = k,
                     .batch = 1,
                     .alpha = 1,
                     .beta = wgrad ? 1 : 0,
                     .a = {.data = a.code, .ld = k, .scale = a.scale},
                     .b = {.data = b.code,
                           .ld = k,
                           .scale = b.scale,
                           .scale_kind = wgrad ? GEMM_SCALE_ROW : GEMM_SCALE_BLOCK},
                     .c = c,
                     .ldc = n};
    snprintf(name, sizeof name, "cuBLASLt FP8 %s %zux%zux%zu", wgrad ? "Wgrad" : "Fprop", m, n, k);
    report_flops(name, 2.0 * (double)m * (double)n * (double)k, seconds(run_gemm, &g));
    void *all[] = {a.code, a.scale, b.code, b.scale, c};
    for (size_t i = 0; i < 5; i++) {
        must((int)cudaFree(all[i]), "free");
    }
}

struct experts {
    struct grouped g;
    uint32_t n, k;
    size_t padded;
    struct fp8_codes x, w;
    uint16_t *y;
    float *dw;
};

static void run_rows(void *ctx, size_t turn)
{
    struct experts *e = ctx;
    (void)turn;
    must(grouped_rows(e->g, e->n, e->k, e->x, e->w, e->y), "grouped rows");
}

static void run_weights(void *ctx, size_t turn)
{
    struct experts *e = ctx;
    (void)turn;
    must(grouped_weights(e->g, e->n, e->k, e->padded, e->w, e->x, 1, e->dw), "grouped weights");
}

/* rows: of each group; uneven: some take what others lack. */
static void grouped(uint32_t groups, uint32_t rows, uint32_t n, uint32_t k, bool wgrad, bool uneven)
{
    char name[64];
    uint32_t offset[65] = {0};
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t less = uneven ? rows / 3 + 5 : 0;
        offset[g + 1] = offset[g] + (g % 2 == 0 ? rows + less : rows - less);
    }
    uint32_t all = offset[groups];
    struct experts e = {.n = n, .k = k};
    uint32_t *where = device(sizeof offset);
    must((int)cudaMemcpy(where, offset, sizeof offset, cudaMemcpyHostToDevice), "fill");
    e.g = (struct grouped){where, groups, all, cuda_state.multiprocessors, cuda_state.stream};
    e.padded = (size_t)128 * tiles_most(all, groups);
    size_t tall = wgrad ? e.padded : all;
    e.x = codes(tall * k, (tall / 128 + 1) * (size_t)k + (size_t)k / 128 * all);
    e.w = wgrad ? codes(e.padded * n, e.padded / 128 * n)
                : codes((size_t)groups * n * k, (size_t)groups * n / 128 * block_scale_pitch(k));
    e.y = bf16s(wgrad ? 1 : (size_t)all * n);
    e.dw = floats(wgrad ? (size_t)groups * n * k : 1);
    snprintf(name, sizeof name, "grouped FP8 %s %ux%u%s %ux%u", wgrad ? "Wgrad" : "Fprop", groups,
             rows, uneven ? " uneven" : "", n, k);
    report_flops(name, 2.0 * all * (double)n * k, seconds(wgrad ? run_weights : run_rows, &e));
    void *mine[] = {where, e.x.code, e.x.scale, e.w.code, e.w.scale, e.y, e.dw};
    for (size_t i = 0; i < 7; i++) {
        must((int)cudaFree(mine[i]), "free");
    }
}

/* ---- rows of 4096 x 7168, four sets that take turns */

#define SETS 4

struct rows {
    uint16_t *x[SETS], *y[SETS], *z[SETS];
    struct fp8_codes row[SETS], col[SETS];
    float *w, *rstd, *dw, *partial, *logits;
    uint32_t *offset, *index, *kept;
    int32_t *token;
    struct loss_state loss;
};

#define ON(name, call)                                                                             \
    static void name(void *ctx, size_t turn)                                                       \
    {                                                                                              \
        struct rows *r = ctx;                                                                      \
        size_t s = turn % SETS;                                                                    \
        (void)s;                                                                                   \
        must(call, #name);                                                                         \
    }

ON(on_quantise_rows, quantise_rows(r->x[s], ROWS, HIDDEN, 0, r->row[s], cuda_state.stream))
ON(on_quantise_both, quantise_both(r->x[s], ROWS, HIDDEN, r->offset, 1, 0, 0, r->row[s], r->col[s],
                                   ROWS, cuda_state.stream))
ON(on_quantise_again,
   quantise_again(r->row[s], ROWS, HIDDEN, r->offset, 1, 0, r->col[s], ROWS, cuda_state.stream))
ON(on_e5m6, e5m6_pack(r->x[s], ROWS, HIDDEN, r->kept, r->row[s].scale, cuda_state.stream))
ON(on_norm, norm_forward(r->x[s], HIDDEN, ROWS, HIDDEN, r->w, 1e-6f, r->y[s], r->rstd, r->row[s], 0,
                         cuda_state.stream))
ON(on_norm_backward, norm_backward(r->x[s], HIDDEN, ROWS, HIDDEN, r->w, r->rstd, r->y[s], r->z[s],
                                   HIDDEN, 0, 1, r->dw, r->partial, cuda_state.stream))
ON(on_swiglu, swiglu_forward(r->x[s], ROWS, HIDDEN / 2, r->y[s], r->row[s], cuda_state.stream))
ON(on_swiglu_backward,
   swiglu_backward(r->x[s], r->y[s], ROWS, HIDDEN / 2, r->z[s], NULL, cuda_state.stream))
ON(on_gather, gather_rows(r->x[s], r->index, ROWS, HIDDEN, r->y[s], cuda_state.stream))
ON(on_combine,
   combine_rows(r->x[s], r->index, r->w, 8, ROWS / 8, HIDDEN, r->y[s], cuda_state.stream))
ON(on_loss, loss_add(r->loss, r->logits, ROWS, HIDDEN, 0, r->token, cuda_state.stream))
ON(on_loss_gradient,
   loss_gradient(r->loss, r->logits, ROWS, HIDDEN, 0, r->token, 1, r->y[s], cuda_state.stream))
ON(on_weight, quantise_weight(r->logits, ROWS, HIDDEN, r->row[s], r->col[s], cuda_state.stream))

static void on_adamw(void *ctx, size_t turn)
{
    struct rows *r = ctx;
    size_t s = turn % SETS;
    struct adamw_step step = adamw_step(1, 1e-4f, 0.9, 0.95, 1e-8f, 0.1f, 0.1f, 0.05f);
    must(adamw_bf16(r->logits, r->x[s], r->y[s], r->partial, r->z[s], (size_t)ROWS * HIDDEN, &step,
                    cuda_state.stream),
         "adamw");
}

static void rows(void)
{
    size_t cells = (size_t)ROWS * HIDDEN;
    uint32_t offset[2] = {0, ROWS}, index[ROWS];
    int32_t token[ROWS];
    struct rows r = {.w = floats(HIDDEN),
                     .rstd = floats(ROWS),
                     .dw = floats(HIDDEN),
                     .partial = floats(cells),
                     .logits = floats(cells),
                     .kept = device(cells * 3 / 2),
                     .loss = {floats(ROWS), floats(ROWS), floats(ROWS)}};
    for (uint32_t i = 0; i < ROWS; i++) {
        size_t j = (size_t)random_below(i + 1);
        index[i] = index[j];
        index[j] = i;
        token[i] = (int32_t)random_below(HIDDEN);
    }
    r.offset = repeated(offset, sizeof offset, sizeof offset);
    r.index = repeated(index, sizeof index, sizeof index);
    r.token = repeated(token, sizeof token, sizeof token);
    for (size_t s = 0; s < SETS; s++) {
        r.x[s] = bf16s(cells);
        r.y[s] = bf16s(cells);
        r.z[s] = bf16s(cells);
        r.row[s] = codes(cells, cells / 128);
        r.col[s] = codes(cells, cells / 128);
    }
    const struct {
        const char *name;
        bench_fn *fn;
        double bytes; /* an element of 4096 x 7168 */
    } list[] = {{"quantise 1x128", on_quantise_rows, 3},
                {"quantise 1x128 and 128x1", on_quantise_both, 4},
                {"quantise 128x1 of codes", on_quantise_again, 2},
                {"E5M6", on_e5m6, 3.5},
                {"norm + quantise", on_norm, 5},
                {"norm backward", on_norm_backward, 6},
                {"SwiGLU + quantise", on_swiglu, 3.5},
                {"SwiGLU backward", on_swiglu_backward, 5},
                {"gather", on_gather, 4},
                {"combine 8", on_combine, 2.5},
                {"loss of a chunk", on_loss, 4},
                {"gradient of a chunk of logits", on_loss_gradient, 6},
                {"quantise weights, both ways", on_weight, 6},
                {"AdamW", on_adamw, 22}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        report_bytes(list[i].name, list[i].bytes * (double)cells, seconds(list[i].fn, &r));
    }
}

int main(void)
{
    struct err err = {0};
    if (driver_check(1, &err) != 0 || state_open(0, &err) != 0) {
        fprintf(stderr, "bench_gpu: %s\n", err.text);
        return EXIT_NO_GPU;
    }
    random_start("bench_gpu");
    ceilings();
    const size_t shapes[][3] = {{4096, 7168, 16384}, {4096, 4096, 7168},  {4096, 2112, 7168},
                                {4096, 7168, 2048},  {4096, 24576, 1536}, {4096, 32768, 512}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        dense(shapes[i][0], shapes[i][1], shapes[i][2], false);
    }
    dense(7168, 16384, 4096, true);
    dense(4096, 7168, 4096, true);
    for (int uneven = 0; uneven < 2; uneven++) {
        grouped(4, 8192, 4096, 7168, false, uneven);
        grouped(4, 8192, 7168, 2048, false, uneven);
        grouped(8, 4096, 4096, 7168, false, uneven);
        grouped(8, 4096, 7168, 2048, false, uneven);
        grouped(4, 8192, 4096, 7168, true, uneven);
        grouped(4, 8192, 7168, 2048, true, uneven);
    }
    rows();
    fflush(stdout); /* what follows takes most of the device's memory */
    bench_layer(&cuda_ops, bf16_rate);
    bench_model(&cuda_ops, bf16_rate);
    return 0;
}
