/* SwiGLU of BF16 rows gu = [gate, up]. Launch functions return 0 or an error of the CUDA runtime.
 * Rows start on 16 bytes, cols (of out) is a multiple of 8. */
#ifndef TRAINER_CUDA_SWIGLU_H
#define TRAINER_CUDA_SWIGLU_H

#include "trainer/cuda/quantise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = silu(gate) * up, BF16 (NULL: not wanted), and its row codes (code NULL: not wanted). Bytes
 * an element of out: 4 + 2 (out) + 1 (codes). */
int swiglu_forward(const uint16_t *gu, size_t rows, size_t cols, uint16_t *out,
                   struct fp8_codes row, struct CUstream_st *stream);
/* The same from gu kept as row codes of [rows, 2 cols]. Bytes: 2 + 2 + 1. */
int swiglu_forward_kept(struct fp8_codes gu, size_t rows, size_t cols, uint16_t *out,
                        struct fp8_codes row, struct CUstream_st *stream);
/* dgu, and out again (NULL: not wanted). Bytes an element of out: 4 + 2 + 4 (dgu) + 2 (out). */
int swiglu_backward(const uint16_t *gu, const uint16_t *dout, size_t rows, size_t cols,
                    uint16_t *dgu, uint16_t *out, struct CUstream_st *stream);
/* The same from gu kept as row codes. Bytes: 2 + 2 + 4 + 2. */
int swiglu_backward_kept(struct fp8_codes gu, const uint16_t *dout, size_t rows, size_t cols,
                         uint16_t *dgu, uint16_t *out, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
