/* Matrix products by cuBLASLt, row-major. They return 0 or an error of cuBLAS + GEMM_ERROR. The
 * first product of a shape asks the library which kernel is best and keeps the answer; after that
 * nothing is allocated, and nothing ever waits. Work is queued on cuda_state.stream. */
#ifndef TRAINER_CUDA_GEMM_H
#define TRAINER_CUDA_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GEMM_ERROR 10000

enum gemm_type { GEMM_F32, GEMM_BF16, GEMM_FP8 };
/* Scales of FP8 operands, in the layouts of quantise.h. */
enum gemm_scale {
    GEMM_SCALE_ROW,  /* 1 x 128 along k: scale[k / 128 * rows + row] */
    GEMM_SCALE_BLOCK /* 128 x 128: scale[row / 128 * pitch + k / 128] */
};

struct gemm_operand {
    const void *data;
    size_t ld;
    bool transposed; /* as in BLAS; FP8 operands never */
    size_t stride;   /* elements to the next of a batch */
    const float *scale;
    enum gemm_scale scale_kind;
};

/* c[m, n] = alpha a b + beta c; c is FP32 or BF16. FP32 products are FP32 throughout (no TF32), the
 * others accumulate in FP32. FP8: b is [n, k] and multiplied as its transpose, m, n and k are
 * multiples of 16, one of a and b has row scales, pointers are 16-byte aligned; each 128 of k are
 * summed and scaled in FP32. */
struct gemm {
    enum gemm_type type, c_type;
    size_t m, n, k;
    size_t batch; /* 1: no batch */
    float alpha, beta;
    struct gemm_operand a, b;
    void *c;
    size_t ldc, stride_c;
};

int gemm_run(const struct gemm *g);

#ifdef __cplusplus
}
#endif

#endif
