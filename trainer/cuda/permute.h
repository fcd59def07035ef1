/* Rows of BF16 on their way to the experts and back. Launch functions return 0 or an error of the
 * CUDA runtime. Rows start on 16 bytes, cols is a multiple of 8. */
#ifndef TRAINER_CUDA_PERMUTE_H
#define TRAINER_CUDA_PERMUTE_H

#include "trainer/cuda/quantise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = x[index[i]]. Bytes an element: 4. */
int gather_rows(const uint16_t *x, const uint32_t *index, size_t rows, size_t cols, uint16_t *y,
                struct CUstream_st *stream);
/* The same for row codes of x_rows rows and their scales. Bytes an element: 2. */
int gather_codes(struct fp8_codes x, size_t x_rows, const uint32_t *index, size_t rows, size_t cols,
                 struct fp8_codes y, struct CUstream_st *stream);
/* out[t] += sum over j of weight[t, j] * y[place[t, j]]; weight NULL is 1. Bytes an element of out:
 * 2 top_k + 4. */
int combine_rows(const uint16_t *y, const uint32_t *place, const float *weight, size_t top_k,
                 size_t tokens, size_t cols, uint16_t *out, struct CUstream_st *stream);
/* dy[place[t, j]] = weight[t, j] * dout[t]; dweight[t, j] = dout[t] . y[place[t, j]]. Bytes an
 * element of dout: 2 + 4 top_k. */
int combine_backward_rows(const uint16_t *dout, const uint16_t *y, const uint32_t *place,
                          const float *weight, size_t top_k, size_t tokens, size_t cols,
                          uint16_t *dy, float *dweight, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
