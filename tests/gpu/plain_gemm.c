/* Products by three loops, added up in double: what the CPU back end of the checks multiplies with,
 * and where there is no GPU also what stands for cuBLASLt. */
#include "tests/gpu/plain_gemm.h"

#include "trainer/cpu/blas.h"
#include "trainer/half.h"

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

float gemm_element(enum gemm_type type, const struct gemm_operand *o, size_t batch, size_t rows,
                   size_t row, size_t l)
{
    size_t i = batch * o->stride + (o->transposed ? l * o->ld + row : row * o->ld + l);
    if (type == GEMM_F32) {
        return ((const float *)o->data)[i];
    }
    if (type == GEMM_BF16) {
        return bf16_decode(((const uint16_t *)o->data)[i]);
    }
    size_t pitch = (o->ld + 511) / 512 * 4; /* columns of tiles, to a multiple of 4 */
    float scale = o->scale_kind == GEMM_SCALE_ROW ? o->scale[l / 128 * rows + row]
                                                  : o->scale[row / 128 * pitch + l / 128];
    return fp8_decode(((const uint8_t *)o->data)[i]) * scale;
}

int gemm_run(const struct gemm *g)
{
    /* b as rows of n, seen from a product with its transpose */
    struct gemm_operand b = g->b;
    b.transposed = g->type != GEMM_FP8 && !g->b.transposed;
    for (size_t s = 0; s < g->batch; s++) {
        for (size_t i = 0; i < g->m * g->n; i++) {
            size_t row = i / g->n, col = i % g->n;
            size_t at = s * g->stride_c + row * g->ldc + col;
            double sum = 0, before = 0;
            for (size_t l = 0; l < g->k; l++) {
                sum += (double)gemm_element(g->type, &g->a, s, g->m, row, l) *
                       gemm_element(g->type, &b, s, g->n, col, l);
            }
            if (g->beta != 0) {
                before = g->c_type == GEMM_F32 ? ((float *)g->c)[at]
                                               : bf16_decode(((uint16_t *)g->c)[at]);
            }
            float value = (float)(g->alpha * sum + g->beta * before);
            if (g->c_type == GEMM_F32) {
                ((float *)g->c)[at] = value;
            } else {
                ((uint16_t *)g->c)[at] = bf16_encode(value);
            }
        }
    }
    return 0;
}
