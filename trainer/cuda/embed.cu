#include "trainer/cuda/embed.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

/* ---- forward: y[r] = table[token[r]] */

template <class T>
__global__ void __launch_bounds__(BLOCK)
    embed_kernel(const int32_t *token, const T *table, T *y, size_t ld, size_t cols)
{
    const T *from = table + (size_t)token[blockIdx.x] * cols;
    T *to = y + blockIdx.x * ld;
    for (size_t c = threadIdx.x * Lane<T>::width; c < cols; c += BLOCK * Lane<T>::width) {
        float v[Lane<T>::width];
        load(v, from + c);
        save(to + c, v);
    }
}

/* ---- backward. The block of a token's first row adds up all rows of that token, in their order;
 * the blocks of its other rows have nothing to do. It finds them by comparing tokens: rows^2 / 2
 * comparisons of 4 bytes in the cache, little beside the rows themselves. */

template <class T>
__global__ void __launch_bounds__(BLOCK)
    embed_backward_kernel(const int32_t *token, size_t rows, const T *dy, size_t ld, size_t cols,
                          float alpha, float *dtable)
{
    constexpr int width = Lane<T>::width;
    __shared__ unsigned hits[BLOCK / WARP]; /* a bit a row */
    const size_t own = blockIdx.x;
    const int32_t id = token[own];
    int earlier = 0;
    for (size_t r = threadIdx.x; r < own; r += BLOCK) {
        earlier |= token[r] == id;
    }
    if (__syncthreads_or(earlier)) {
        return;
    }
    for (size_t first = own; first < rows; first += BLOCK) {
        size_t r = first + threadIdx.x;
        unsigned hit = __ballot_sync(ALL, r < rows && token[r] == id);
        if (threadIdx.x % WARP == 0) {
            hits[threadIdx.x / WARP] = hit;
        }
        __syncthreads();
        for (size_t c = threadIdx.x * width; c < cols; c += BLOCK * width) {
            float sum[width];
            bool any = false;
            float *out = dtable + (size_t)id * cols + c;
            for (unsigned w = 0; w < BLOCK / WARP; w++) {
                for (unsigned left = hits[w]; left != 0; left &= left - 1) {
                    unsigned lane = (unsigned)__popc((left & (0u - left)) - 1);
                    float v[width];
                    if (!any) {
                        load_floats<width>(sum, out);
                        any = true;
                    }
                    load(v, dy + (first + w * WARP + lane) * ld + c);
#pragma unroll
                    for (int i = 0; i < width; i++) {
                        sum[i] += alpha * v[i];
                    }
                }
            }
            for (int i = 0; any && i < width; i++) {
                out[i] = sum[i];
            }
        }
        __syncthreads();
    }
}

template <class T>
static int embed(const int32_t *token, const T *table, T *y, size_t ld, size_t rows, size_t cols,
                 struct CUstream_st *stream)
{
    auto kernel = embed_kernel<T>;
    return rows == 0 || cols == 0
               ? 0
               : LAUNCH(kernel, (unsigned)rows, BLOCK, 0, stream, token, table, y, ld, cols);
}

template <class T>
static int embed_backward(const int32_t *token, const T *dy, size_t ld, size_t rows, size_t cols,
                          float alpha, float *dtable, struct CUstream_st *stream)
{
    auto kernel = embed_backward_kernel<T>;
    return rows == 0 || cols == 0 ? 0
                                  : LAUNCH(kernel, (unsigned)rows, BLOCK, 0, stream, token, rows,
                                           dy, ld, cols, alpha, dtable);
}

void ops_embed(const int32_t *token, const float *table, struct mat y)
{
    state_check(embed(token, table, y.data, y.ld, y.rows, y.cols, cuda_state.stream), "embed");
}

void ops_embed_backward(const int32_t *token, struct mat dy, float alpha, float *dtable)
{
    state_check(
        embed_backward(token, dy.data, dy.ld, dy.rows, dy.cols, alpha, dtable, cuda_state.stream),
        "embed backward");
}

int embed_bf16(const int32_t *token, const uint16_t *table, uint16_t *y, size_t rows, size_t cols,
               struct CUstream_st *stream)
{
    return embed(token, table, y, cols, rows, cols, stream);
}

int embed_backward_bf16(const int32_t *token, const uint16_t *dy, size_t rows, size_t cols,
                        float alpha, float *dtable, struct CUstream_st *stream)
{
    return embed_backward(token, dy, cols, rows, cols, alpha, dtable, stream);
}
