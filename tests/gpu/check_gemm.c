/* cuBLASLt's products as gemm.h wraps them: BF16 and FP8 in all the pairs of scales that training
 * uses, FP32 and BF16 results, sums added to what is there. Against double, on the very numbers
 * that the operands stand for. */
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "trainer/cpu/blas.h"
#include "trainer/cuda/gemm.h"
#include "trainer/cuda/quantise.h"
#include "trainer/cuda/state.h"
#include "trainer/half.h"

#define FP8_PRODUCT 1e-3
#define BF16        4e-3 /* rounding of the result */

/* One operand [rows, k]: on the device as the product wants it, here as numbers. */
struct operand {
    void *data;
    float *scale;
    float *numbers;
    enum gemm_scale kind;
};

static struct operand fp8_operand(size_t rows, size_t k, enum gemm_scale kind)
{
    size_t tiles = (k + 127) / 128, pitch = block_scale_pitch(k);
    size_t scales = kind == GEMM_SCALE_ROW ? tiles * rows : (rows + 127) / 128 * pitch;
    struct fp8_codes c = {poisoned(rows * k), poisoned(scales * sizeof(float))};
    struct operand o = {c.code, c.scale, mem_alloc_array(rows * k, sizeof(float)), kind};
    if (kind == GEMM_SCALE_ROW) {
        uint16_t *host = mem_alloc_array(rows * k, sizeof *host);
        fill_bf16(host, rows * k);
        uint16_t *x = upload(host, rows * k * sizeof *host);
        check_true("quantise_rows", quantise_rows(x, rows, k, 0, c, cuda_state.stream) == 0);
        check.gpu->release(x);
        free(host);
    } else {
        struct pair w = pair_dense(rows, k);
        check_true("quantise_weight",
                   quantise_weight(w.gpu.data, rows, k, c, (struct fp8_codes){NULL, NULL},
                                   cuda_state.stream) == 0);
        pair_free(&w);
    }
    uint8_t *code = download(c.code, rows * k);
    float *scale = download(c.scale, scales * sizeof *scale);
    for (size_t i = 0; i < rows * k; i++) {
        size_t row = i / k, tile = i % k / 128;
        o.numbers[i] =
            fp8_decode(code[i]) *
            (kind == GEMM_SCALE_ROW ? scale[tile * rows + row] : scale[row / 128 * pitch + tile]);
    }
    free(code);
    free(scale);
    return o;
}

static struct operand bf16_operand(size_t rows, size_t k)
{
    uint16_t *host = mem_alloc_array(rows * k, sizeof *host);
    struct operand o = {.numbers = mem_alloc_array(rows * k, sizeof(float))};
    fill_bf16(host, rows * k);
    for (size_t i = 0; i < rows * k; i++) {
        o.numbers[i] = bf16_decode(host[i]);
    }
    o.data = upload(host, rows * k * sizeof *host);
    free(host);
    return o;
}

static void operand_free(struct operand *o)
{
    check.gpu->release(o->data);
    if (o->scale != NULL) {
        check.gpu->release(o->scale);
    }
    free(o->numbers);
}

static void run(const char *what, enum gemm_type type, const struct operand *a,
                const struct operand *b, size_t m, size_t n, size_t k, enum gemm_type c_type)
{
    float beta = c_type == GEMM_F32 ? 1 : 0;
    struct pair c = pair_dense(m, n);
    uint16_t *low = poisoned(m * n * sizeof *low);
    struct gemm g = {.type = type,
                     .c_type = c_type,
                     .m = m,
                     .n = n,
                     .k = k,
                     .batch = 1,
                     .alpha = 1,
                     .beta = beta,
                     .a = {a->data, k, false, 0, a->scale, a->kind},
                     .b = {b->data, k, true, 0, b->scale, b->kind},
                     .c = c_type == GEMM_F32 ? (void *)c.gpu.data : low,
                     .ldc = n};
    int rc = gemm_run(&g);
    check_true(what, rc == 0);
    blas_gemm(false, true, m, n, k, 1, a->numbers, k, b->numbers, k, beta, c.cpu.data, n);
    if (rc == 0 && c_type == GEMM_F32) {
        pair_check(what, c, type == GEMM_FP8 ? FP8_PRODUCT : 1e-4);
    } else if (rc == 0) {
        uint16_t *got = download(low, m * n * sizeof *got);
        float *values = mem_alloc_array(m * n, sizeof *values);
        for (size_t i = 0; i < m * n; i++) {
            values[i] = bf16_decode(got[i]);
        }
        check_floats(what, values, c.cpu.data, m * n, BF16);
        free(got);
        free(values);
    }
    check.gpu->release(low);
    pair_free(&c);
}

void check_gemm(void)
{
    static const struct {
        const char *name;
        enum gemm_scale a, b;
    } kinds[] = {{"fp8 Fprop and Dgrad: 1x128 by 128x128", GEMM_SCALE_ROW, GEMM_SCALE_BLOCK},
                 {"fp8 Wgrad: 1x128 by 1x128", GEMM_SCALE_ROW, GEMM_SCALE_ROW}};
    for (int trial = 0; trial < 4; trial++) {
        size_t m = 64 * (1 + check_below(8)), n = 64 * (1 + check_below(8));
        size_t k = 128 * (1 + check_below(8));
        for (size_t i = 0; i < 2; i++) {
            struct operand a = fp8_operand(m, k, kinds[i].a), b = fp8_operand(n, k, kinds[i].b);
            run(kinds[i].name, GEMM_FP8, &a, &b, m, n, k, GEMM_F32);
            run(kinds[i].name, GEMM_FP8, &a, &b, m, n, k, GEMM_BF16);
            operand_free(&a);
            operand_free(&b);
        }
        struct operand a = bf16_operand(m, k), b = bf16_operand(n, k);
        run("bf16 product", GEMM_BF16, &a, &b, m, n, k, GEMM_F32);
        run("bf16 product", GEMM_BF16, &a, &b, m, n, k, GEMM_BF16);
        operand_free(&a);
        operand_free(&b);
    }
}
