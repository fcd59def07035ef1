/* Plain products, added up in double, in order of k: what the CPU back end of these checks
 * multiplies with.
 */
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/cpu/blas.h"

void blas_load(void)
{
}

void blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
               size_t ldc)
{
    float *dense = mem_alloc_array(k * n + 1, sizeof *dense); /* b, [k, n] */
    double *sum = mem_alloc_array(n + 1, sizeof *sum);
    for (size_t l = 0; l < k; l++) {
        for (size_t j = 0; j < n; j++) {
            dense[l * n + j] = transpose_b ? b[j * ldb + l] : b[l * ldb + j];
        }
    }
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            sum[j] = 0;
        }
        for (size_t l = 0; l < k; l++) {
            double x = transpose_a ? a[l * lda + i] : a[i * lda + l];
            for (size_t j = 0; j < n; j++) {
                sum[j] += x * (double)dense[l * n + j];
            }
        }
        for (size_t j = 0; j < n; j++) {
            float *out = c + i * ldc + j;
            *out = (float)(alpha * sum[j] + (beta == 0 ? 0 : (double)beta * *out));
        }
    }
    free(dense);
    free(sum);
}
