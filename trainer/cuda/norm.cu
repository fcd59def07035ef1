/* A block works on a row at a time. The forward pass reads it twice, the second time out of the
 * nearest cache. The backward pass holds a fixed set of columns in each thread and goes through
 * every NORM_BLOCKS-th row, so that the sums for dw stay in registers; another kernel adds up the
 * blocks' sums in order. */
#include "trainer/cuda/norm.h"

#include "trainer/cuda/codes.cuh"
#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
template <class T> __device__ __forceinline__ float rounded(float x)
{
    return sizeof(T) == 2 ? bf16_round(x) : x;
}

template <class T, bool coded>
__global__ void __launch_bounds__(BLOCK)
    forward_kernel(const T *x, size_t ld, size_t cols, const float *w, float eps, T *y, size_t ld_y,
                   float *rstd, struct fp8_codes row, bool pow2)
{
    constexpr int width = Lane<T>::width;
    __shared__ float shared[BLOCK / WARP];
    const size_t r = blockIdx.x;
    const T *in = x + r * ld;
    float sum = 0;
    for (size_t c = threadIdx.x * width; c < cols; c += BLOCK * width) {
        float v[width];
        load(v, in + c);
#pragma unroll
        for (int i = 0; i < width; i++) {
            sum += v[i] * v[i];
        }
    }
    const float factor = 1.0f / sqrtf(block_sum(sum, shared) / (float)cols + eps);
    if (threadIdx.x == 0) {
        rstd[r] = factor;
    }
    /* whole warps to the end, for the tiles' largest */
    for (size_t first = 0; first < cols; first += BLOCK * width) {
        size_t c = first + threadIdx.x * width;
        const bool inside = c < cols;
        float v[width], weight[width];
#pragma unroll
        for (int i = 0; i < width; i++) {
            v[i] = 0;
        }
        if (inside) {
            load(v, in + c);
            load_floats<width>(weight, w + c);
#pragma unroll
            for (int i = 0; i < width; i++) {
                v[i] = rounded<T>(v[i] * factor * weight[i]);
            }
            if (y != NULL) {
                save(y + r * ld_y + c, v);
            }
        }
        if constexpr (coded) {
            save_row_codes(v, inside, r, gridDim.x, c, cols, pow2, row.code, row.scale);
        }
    }
}

/* ---- backward, FP32: dx by rows, dw by columns */

__global__ void __launch_bounds__(BLOCK) dx_kernel(struct mat x, const float *w, const float *rstd,
                                                   struct mat dy, struct mat dx, bool add)
{
    __shared__ float shared[BLOCK / WARP];
    const size_t r = blockIdx.x;
    float sum = 0;
    for (size_t c = threadIdx.x; c < x.cols; c += BLOCK) {
        sum += *at(x, r, c) * *at(dy, r, c) * w[c];
    }
    const float factor = rstd[r];
    const float mean = block_sum(sum, shared) * factor * factor / (float)x.cols;
    for (size_t c = threadIdx.x; c < x.cols; c += BLOCK) {
        float d = factor * (w[c] * *at(dy, r, c) - *at(x, r, c) * mean);
        *at(dx, r, c) = add ? *at(dx, r, c) + d : d;
    }
}

/* 32 columns a block, eight rows at a time. */
__global__ void __launch_bounds__(BLOCK)
    dw_kernel(struct mat x, const float *rstd, struct mat dy, float alpha, float *dw)
{
    __shared__ float shared[BLOCK / WARP][WARP];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t col = (size_t)blockIdx.x * WARP + lane;
    float sum = 0;
    for (size_t r = warp; r < x.rows && col < x.cols; r += BLOCK / WARP) {
        sum += *at(dy, r, col) * (*at(x, r, col) * rstd[r]);
    }
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && col < x.cols) {
        for (int i = 1; i < BLOCK / WARP; i++) {
            sum += shared[i][lane];
        }
        dw[col] += alpha * sum;
    }
}

/* ---- backward, BF16: both in one pass over x and dy */

constexpr int CHUNKS = NORM_COLS_MAX / (BLOCK * EIGHT);

template <int chunks>
__global__ void __launch_bounds__(BLOCK)
    backward_kernel(const uint16_t *x, size_t ld, size_t rows, size_t cols, const float *w,
                    const float *rstd, const uint16_t *dy, uint16_t *dx, size_t ld_dx, bool add,
                    float *partial)
{
    __shared__ float shared[BLOCK / WARP];
    float dw[chunks][EIGHT];
#pragma unroll
    for (int k = 0; k < chunks; k++) {
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            dw[k][i] = 0;
        }
    }
    for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const float factor = rstd[r];
        uint4 raw_x[chunks], raw_dy[chunks];
        float sum = 0;
#pragma unroll
        for (int k = 0; k < chunks; k++) {
            size_t c = (size_t)(k * BLOCK + (int)threadIdx.x) * EIGHT;
            if (c < cols) {
                raw_x[k] = *(const uint4 *)(x + r * ld + c);
                raw_dy[k] = *(const uint4 *)(dy + r * cols + c);
            }
        }
#pragma unroll
        for (int k = 0; k < chunks; k++) {
            size_t c = (size_t)(k * BLOCK + (int)threadIdx.x) * EIGHT;
            if (c < cols) {
                float vx[EIGHT], vdy[EIGHT], weight[EIGHT];
                load(vx, (const uint16_t *)&raw_x[k]);
                load(vdy, (const uint16_t *)&raw_dy[k]);
                load_floats<EIGHT>(weight, w + c);
#pragma unroll
                for (int i = 0; i < EIGHT; i++) {
                    sum += vx[i] * vdy[i] * weight[i];
                    dw[k][i] += vdy[i] * (vx[i] * factor);
                }
            }
        }
        const float mean = block_sum(sum, shared) * factor * factor / (float)cols;
#pragma unroll
        for (int k = 0; k < chunks; k++) {
            size_t c = (size_t)(k * BLOCK + (int)threadIdx.x) * EIGHT;
            if (c < cols) {
                float vx[EIGHT], vdy[EIGHT], weight[EIGHT], d[EIGHT];
                uint16_t *out = dx + r * ld_dx + c;
                load(vx, (const uint16_t *)&raw_x[k]);
                load(vdy, (const uint16_t *)&raw_dy[k]);
                load_floats<EIGHT>(weight, w + c);
                if (add) {
                    load(d, out);
                }
#pragma unroll
                for (int i = 0; i < EIGHT; i++) {
                    float more = factor * (weight[i] * vdy[i] - vx[i] * mean);
                    d[i] = add ? d[i] + more : more;
                }
                save(out, d);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < chunks; k++) {
        size_t c = (size_t)(k * BLOCK + (int)threadIdx.x) * EIGHT;
        if (c < cols) {
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                partial[blockIdx.x * cols + c + (size_t)i] = dw[k][i];
            }
        }
    }
}

__global__ void __launch_bounds__(BLOCK)
    add_partials_kernel(const float *partial, size_t count, size_t cols, float alpha, float *dw)
{
    __shared__ float shared[BLOCK / WARP][WARP];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t col = (size_t)blockIdx.x * WARP + lane;
    float sum = 0;
    for (size_t b = warp; b < count && col < cols; b += BLOCK / WARP) {
        sum += partial[b * cols + col];
    }
    shared[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && col < cols) {
        for (int i = 1; i < BLOCK / WARP; i++) {
            sum += shared[i][lane];
        }
        dw[col] += alpha * sum;
    }
}

unsigned backward_blocks(size_t rows)
{
    return rows < NORM_BLOCKS ? (unsigned)rows : NORM_BLOCKS;
}
} // namespace

int norm_forward(const uint16_t *x, size_t ld, size_t rows, size_t cols, const float *w, float eps,
                 uint16_t *y, float *rstd, struct fp8_codes row, int pow2,
                 struct CUstream_st *stream)
{
    auto plain = forward_kernel<uint16_t, false>;
    auto coded = forward_kernel<uint16_t, true>;
    auto kernel = row.code != NULL ? coded : plain;
    return rows == 0 ? 0
                     : LAUNCH(kernel, (unsigned)rows, BLOCK, 0, stream, x, ld, cols, w, eps, y,
                              cols, rstd, row, pow2 != 0);
}

size_t norm_partials(size_t rows, size_t cols)
{
    return backward_blocks(rows) * cols;
}

int norm_backward(const uint16_t *x, size_t ld, size_t rows, size_t cols, const float *w,
                  const float *rstd, const uint16_t *dy, uint16_t *dx, size_t ld_dx, int add,
                  float alpha, float *dw, float *partial, struct CUstream_st *stream)
{
    unsigned blocks = backward_blocks(rows);
    auto narrow = backward_kernel<1>;
    auto wide = backward_kernel<CHUNKS>;
    auto kernel = cols <= BLOCK * EIGHT ? narrow : wide;
    if (blocks == 0) {
        return 0;
    }
    int rc = LAUNCH(kernel, blocks, BLOCK, 0, stream, x, ld, rows, cols, w, rstd, dy, dx, ld_dx,
                    add != 0, partial);
    return rc != 0 ? rc
                   : LAUNCH(add_partials_kernel, blocks_for(cols, WARP), BLOCK, 0, stream, partial,
                            (size_t)blocks, cols, alpha, dw);
}

void ops_rmsnorm(struct mat x, const float *w, float eps, struct mat y, float *rstd)
{
    auto kernel = forward_kernel<float, false>;
    const struct fp8_codes none = {NULL, NULL};
    if (x.rows > 0) {
        state_check(LAUNCH(kernel, (unsigned)x.rows, BLOCK, 0, cuda_state.stream, x.data, x.ld,
                           x.cols, w, eps, y.data, y.ld, rstd, none, false),
                    "norm");
    }
}

void ops_rmsnorm_backward(struct mat x, const float *w, const float *rstd, struct mat dy,
                          struct mat dx, bool add, float alpha, float *dw)
{
    state_check(LAUNCH(dw_kernel, blocks_for(x.cols, WARP), BLOCK, 0, cuda_state.stream, x, rstd,
                       dy, alpha, dw),
                "gradient of a norm's weights");
    if (x.rows > 0) {
        state_check(LAUNCH(dx_kernel, (unsigned)x.rows, BLOCK, 0, cuda_state.stream, x, w, rstd, dy,
                           dx, add),
                    "gradient of a norm");
    }
}
