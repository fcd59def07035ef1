/* What stands for cuBLASLt where there is no GPU: trainer/cuda/gemm.h by three loops, in double. */
#include "trainer/cuda/gemm.h"
#include "trainer/half.h"

/* Element (row, l) of an operand of `rows` rows, l counting along the sum. */
static float gemm_element(enum gemm_type type, const struct gemm_operand *o, size_t batch,
                          size_t rows, size_t row, size_t l)
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
