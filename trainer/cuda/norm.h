/* RMSNorm of BF16 rows. Launch functions return 0 or an error of the CUDA runtime. Rows start on 16
 * bytes, cols is a multiple of 8. */
#ifndef TRAINER_CUDA_NORM_H
#define TRAINER_CUDA_NORM_H

#include "trainer/cuda/quantise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = w * x * rstd (BF16; NULL: not wanted), and its row codes as quantise_rows of y gives them
 * (row.code NULL: not wanted). x has `ld` elements from row to row. Bytes an element: 2 + 2 (y) + 1
 * (codes). */
int norm_forward(const uint16_t *x, size_t ld, size_t rows, size_t cols, const float *w, float eps,
                 uint16_t *y, float *rstd, struct fp8_codes row, int pow2,
                 struct CUstream_st *stream);

/* dx (+)= ..., dw += alpha * sum over rows. partial: norm_partials(rows, cols) floats. cols up to
 * NORM_COLS_MAX. Bytes an element: 2 + 2 + 2 (and 2 when it adds), the partial sums 8 a column and
 * block. */
#define NORM_COLS_MAX 8192
#define NORM_BLOCKS   264 /* two a multiprocessor of an H100 */
size_t norm_partials(size_t rows, size_t cols);
int norm_backward(const uint16_t *x, size_t ld, size_t rows, size_t cols, const float *w,
                  const float *rstd, const uint16_t *dy, uint16_t *dx, size_t ld_dx, int add,
                  float alpha, float *dw, float *partial, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
