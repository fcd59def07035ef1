/* Matrix products from OpenBLAS, one thread each: sharing out is the pool's. */
#ifndef TRAINER_CPU_BLAS_H
#define TRAINER_CPU_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* Loads the library; once, before any product. The process ends with a clear line when there is
 * none. */
void blas_load(void);

/* c [m, n] = alpha * op(a) op(b) + beta * c, row-major; op transposes where asked: a is [m, k] or,
 * transposed, held as [k, m]. */
void blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
               size_t ldc);

#endif
