/* The embedding, BF16 rows. Launch functions return 0 or an error of the CUDA runtime. Rows are
 * 16-byte aligned, cols a multiple of 8. */
#ifndef TRAINER_CUDA_EMBED_H
#define TRAINER_CUDA_EMBED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* y[r] = table[token[r]]. Bytes: 4 an element. */
int embed_bf16(const int32_t *token, const uint16_t *table, uint16_t *y, size_t rows, size_t cols,
               struct CUstream_st *stream);
/* dtable[token[r]] += alpha * dy[r], in row order, FP32 gradients. Bytes: 2 an element of dy and 8
 * an element of each different token's row. */
int embed_backward_bf16(const int32_t *token, const uint16_t *dy, size_t rows, size_t cols,
                        float alpha, float *dtable, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
