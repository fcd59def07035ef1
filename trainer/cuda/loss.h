/* Cross-entropy without the logits of the whole vocabulary: the head's product makes a chunk of
 * columns at a time, FP32, in one buffer. Forward over all chunks: loss_begin, then for each chunk
 * loss_add, then loss_end. For the gradient the chunks are made once more, each turned into its
 * gradient by loss_gradient. Launch functions return 0 or an error of the CUDA runtime. Chunks are
 * dense [rows, cols], 16-byte aligned, cols a multiple of 8. */
#ifndef TRAINER_CUDA_LOSS_H
#define TRAINER_CUDA_LOSS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* Of each row so far: the largest logit, the sum of exp(logit - largest), the target's logit. */
struct loss_state {
    float *top, *sum, *at_target;
};

int loss_begin(struct loss_state s, size_t rows, struct CUstream_st *stream);
/* Bytes a logit: 4. */
int loss_add(struct loss_state s, const float *logits, size_t rows, size_t cols, size_t first_col,
             const int32_t *target, struct CUstream_st *stream);
/* loss[r] = -log softmax(logits[r])[target[r]] */
int loss_end(struct loss_state s, size_t rows, float *loss, struct CUstream_st *stream);
/* gradient = scale * (softmax - one at the target), BF16. Bytes a logit: 4 + 2. */
int loss_gradient(struct loss_state s, const float *logits, size_t rows, size_t cols,
                  size_t first_col, const int32_t *target, float scale, uint16_t *gradient,
                  struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
