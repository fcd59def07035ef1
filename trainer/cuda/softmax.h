/* The steps between the products of plain attention (attention.c): scores of some heads, FP32, s
 * [heads][seq][seq], row q of which may look at columns up to q; the others become 0. Launch
 * functions return 0 or an error of the CUDA runtime. */
#ifndef TRAINER_CUDA_SOFTMAX_H
#define TRAINER_CUDA_SOFTMAX_H

#include "trainer/op.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* s becomes the probabilities, rounded to BF16 if asked; lse [heads][seq]. */
int softmax_causal(float *s, size_t heads, size_t seq, bool bf16, float *lse,
                   struct CUstream_st *stream);
/* s, ds: scores, and the gradient of the probabilities; they become the probabilities and the
 * gradient of the scores, both rounded if asked. out, dout: of the first of these heads and the
 * sequence's first token. */
int softmax_backward(float *s, float *ds, size_t heads, size_t seq, size_t v, float scale,
                     bool bf16, const float *lse, struct op_heads out, struct op_heads dout,
                     struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
