/* Rotary embedding and the keys of multi-head latent attention, BF16. Launch functions return 0 or
 * an error of the CUDA runtime. Head dimensions and strides are multiples of 8 elements, pointers
 * 16-byte aligned. table [seq, dim] FP32: (cos, sin) of each adjacent pair. */
#ifndef TRAINER_CUDA_ROTARY_H
#define TRAINER_CUDA_ROTARY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* Heads inside rows of tokens: element i of head h of token t is data[t * row + h * head + i]. */
struct half_heads {
    uint16_t *data;
    size_t row, head;
};

/* Turns `dim` elements of each head in place; inverse: back. Bytes an element turned: 4. */
int rotary(struct half_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
           const float *table, int inverse, struct CUstream_st *stream);
/* k[t, h] = [nope[t, h], turned shared[t]]. Bytes an element of nope: 4; of the rest of k: 2. */
int rotary_keys(struct half_heads nope, size_t nope_dim, const uint16_t *shared, size_t ld_shared,
                size_t dim, size_t rows, size_t seq, size_t heads, const float *table,
                struct half_heads k, struct CUstream_st *stream);
/* dnope, and dshared[t] = the sum over heads turned back. Bytes an element of dnope: 4; of the rest
 * of dk: 2. */
int rotary_keys_backward(struct half_heads dk, size_t nope_dim, size_t dim, size_t rows, size_t seq,
                         size_t heads, const float *table, struct half_heads dnope,
                         uint16_t *dshared, size_t ld_shared, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
