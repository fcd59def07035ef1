#include "trainer/cuda/permute.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
/* A matrix of T. */
template <class T> struct Rows {
    T *data;
    size_t ld;
};

/* One block a row. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
    gather_kernel(Rows<const T> x, const uint32_t *index, size_t cols, Rows<T> y)
{
    constexpr int width = Lane<T>::width;
    const T *from = x.data + index[blockIdx.x] * x.ld;
    T *to = y.data + blockIdx.x * y.ld;
    for (size_t c = threadIdx.x * width; c < cols; c += BLOCK * width) {
        float v[width];
        load(v, from + c);
        save(to + c, v);
    }
}

__global__ void __launch_bounds__(BLOCK)
    gather_codes_kernel(struct fp8_codes x, size_t x_rows, const uint32_t *index, size_t cols,
                        struct fp8_codes y)
{
    const size_t from = index[blockIdx.x], to = blockIdx.x;
    for (size_t c = threadIdx.x * 8; c < cols; c += BLOCK * 8) {
        *(uint2 *)(y.code + to * cols + c) = *(const uint2 *)(x.code + from * cols + c);
    }
    for (size_t tile = threadIdx.x; tile * TILE < cols; tile += BLOCK) {
        y.scale[tile * gridDim.x + to] = x.scale[tile * x_rows + from];
    }
}

/* One block a token; weight NULL is 1. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
    combine_kernel(Rows<const T> y, const uint32_t *place, const float *weight, unsigned top_k,
                   size_t cols, Rows<T> out)
{
    constexpr int width = Lane<T>::width;
    const size_t t = blockIdx.x;
    for (size_t c = threadIdx.x * width; c < cols; c += BLOCK * width) {
        float sum[width];
        load(sum, out.data + t * out.ld + c);
#pragma unroll 4
        for (unsigned j = 0; j < top_k; j++) {
            size_t pair = t * top_k + j;
            float v[width], w = weight == NULL ? 1.0f : weight[pair];
            load(v, y.data + place[pair] * y.ld + c);
#pragma unroll
            for (int i = 0; i < width; i++) {
                sum[i] += w * v[i];
            }
        }
        save(out.data + t * out.ld + c, sum);
    }
}

/* One block a pair of token and slot. dy may be y: a thread writes what it alone has read. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
    combine_backward_kernel(Rows<const T> dout, Rows<const T> y, const uint32_t *place,
                            const float *weight, unsigned top_k, size_t cols, Rows<T> dy,
                            float *dweight)
{
    constexpr int width = Lane<T>::width;
    __shared__ float shared[BLOCK / WARP];
    const size_t pair = blockIdx.x, t = pair / top_k, row = place[pair];
    const float w = weight[pair];
    float sum = 0;
    for (size_t c = threadIdx.x * width; c < cols; c += BLOCK * width) {
        float d[width], v[width];
        load(d, dout.data + t * dout.ld + c);
        load(v, y.data + row * y.ld + c);
#pragma unroll
        for (int i = 0; i < width; i++) {
            sum += d[i] * v[i];
            d[i] *= w;
        }
        save(dy.data + row * dy.ld + c, d);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        dweight[pair] = sum;
    }
}

template <class T>
int gather(Rows<const T> x, const uint32_t *index, size_t rows, size_t cols, Rows<T> y,
           struct CUstream_st *stream)
{
    auto kernel = gather_kernel<T>;
    return rows == 0 ? 0 : LAUNCH(kernel, (unsigned)rows, BLOCK, 0, stream, x, index, cols, y);
}

template <class T>
int combine(Rows<const T> y, const uint32_t *place, const float *weight, size_t top_k,
            size_t tokens, size_t cols, Rows<T> out, struct CUstream_st *stream)
{
    auto kernel = combine_kernel<T>;
    return tokens == 0 ? 0
                       : LAUNCH(kernel, (unsigned)tokens, BLOCK, 0, stream, y, place, weight,
                                (unsigned)top_k, cols, out);
}

template <class T>
int combine_backward(Rows<const T> dout, Rows<const T> y, const uint32_t *place,
                     const float *weight, size_t top_k, size_t tokens, size_t cols, Rows<T> dy,
                     float *dweight, struct CUstream_st *stream)
{
    auto kernel = combine_backward_kernel<T>;
    return tokens == 0 ? 0
                       : LAUNCH(kernel, (unsigned)(tokens * top_k), BLOCK, 0, stream, dout, y,
                                place, weight, (unsigned)top_k, cols, dy, dweight);
}

Rows<const float> read_only(struct mat m)
{
    return {m.data, m.ld};
}
} // namespace

int gather_rows(const uint16_t *x, const uint32_t *index, size_t rows, size_t cols, uint16_t *y,
                struct CUstream_st *stream)
{
    return gather(Rows<const uint16_t>{x, cols}, index, rows, cols, Rows<uint16_t>{y, cols},
                  stream);
}

int gather_codes(struct fp8_codes x, size_t x_rows, const uint32_t *index, size_t rows, size_t cols,
                 struct fp8_codes y, struct CUstream_st *stream)
{
    return rows == 0 ? 0
                     : LAUNCH(gather_codes_kernel, (unsigned)rows, BLOCK, 0, stream, x, x_rows,
                              index, cols, y);
}

int combine_rows(const uint16_t *y, const uint32_t *place, const float *weight, size_t top_k,
                 size_t tokens, size_t cols, uint16_t *out, struct CUstream_st *stream)
{
    return combine(Rows<const uint16_t>{y, cols}, place, weight, top_k, tokens, cols,
                   Rows<uint16_t>{out, cols}, stream);
}

int combine_backward_rows(const uint16_t *dout, const uint16_t *y, const uint32_t *place,
                          const float *weight, size_t top_k, size_t tokens, size_t cols,
                          uint16_t *dy, float *dweight, struct CUstream_st *stream)
{
    return combine_backward(Rows<const uint16_t>{dout, cols}, Rows<const uint16_t>{y, cols}, place,
                            weight, top_k, tokens, cols, Rows<uint16_t>{dy, cols}, dweight, stream);
}

void ops_gather(struct mat x, const uint32_t *index, struct mat y)
{
    state_check(
        gather(read_only(x), index, y.rows, y.cols, Rows<float>{y.data, y.ld}, cuda_state.stream),
        "gather");
}

void ops_combine(struct mat y, const uint32_t *place, const float *weight, size_t top_k,
                 struct mat out)
{
    state_check(combine(read_only(y), place, weight, top_k, out.rows, out.cols,
                        Rows<float>{out.data, out.ld}, cuda_state.stream),
                "combine");
}

void ops_combine_backward(struct mat dout, struct mat y, const uint32_t *place, const float *weight,
                          size_t top_k, struct mat dy, float *dweight)
{
    state_check(combine_backward(read_only(dout), read_only(y), place, weight, top_k, dout.rows,
                                 dout.cols, Rows<float>{dy.data, dy.ld}, dweight,
                                 cuda_state.stream),
                "combine backward");
}
