/* Products by three loops, added up in double: what the CPU back end of these checks multiplies
 * with.
 */
#include "trainer/cpu/blas.h"

void blas_load(void)
{
}

void blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
               size_t ldc)
{
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++) {
                double x = transpose_a ? a[l * lda + i] : a[i * lda + l];
                double y = transpose_b ? b[j * ldb + l] : b[l * ldb + j];
                sum += x * y;
            }
            float *out = c + i * ldc + j;
            *out = (float)(alpha * sum + (beta == 0 ? 0 : (double)beta * *out));
        }
    }
}
