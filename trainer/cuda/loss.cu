#include "trainer/cuda/loss.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
constexpr int EIGHT = 8;

__global__ void __launch_bounds__(BLOCK) begin_kernel(struct loss_state s, size_t rows)
{
    size_t r = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    if (r < rows) {
        s.top[r] = -INFINITY;
        s.sum[r] = 0;
        s.at_target[r] = 0;
    }
}

/* A sum of exponentials under a maximum that moves. */
struct Running {
    float top, sum;
};

__device__ __forceinline__ Running merge(Running a, Running b)
{
    float top = fmaxf(a.top, b.top);
    /* an empty one has top -inf and sum 0 */
    float left = a.sum == 0 ? 0 : a.sum * expf(a.top - top);
    float right = b.sum == 0 ? 0 : b.sum * expf(b.top - top);
    return Running{top, left + right};
}

/* One block a row. */
__global__ void __launch_bounds__(BLOCK)
    add_kernel(struct loss_state s, const float *logits, size_t cols, size_t first_col,
               const int32_t *target)
{
    __shared__ Running shared[BLOCK / WARP];
    const size_t r = blockIdx.x;
    const float *x = logits + r * cols;
    Running own = {-INFINITY, 0};
    for (size_t c = threadIdx.x * EIGHT; c < cols; c += BLOCK * EIGHT) {
        float v[EIGHT];
        load_floats<EIGHT>(v, x + c);
        float top = own.top;
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            top = fmaxf(top, v[i]);
        }
        float sum = own.sum == 0 ? 0 : own.sum * expf(own.top - top);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            sum += expf(v[i] - top);
        }
        own = Running{top, sum};
    }
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        Running other;
        other.top = __shfl_xor_sync(ALL, own.top, lane);
        other.sum = __shfl_xor_sync(ALL, own.sum, lane);
        own = merge(own, other);
    }
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = own;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        Running all = {s.top[r], s.sum[r]};
        for (int w = 0; w < BLOCK / WARP; w++) {
            all = merge(all, shared[w]);
        }
        s.top[r] = all.top;
        s.sum[r] = all.sum;
        size_t at = (size_t)target[r] - first_col; /* wraps when the target is before the chunk */
        if (at < cols) {
            s.at_target[r] = x[at];
        }
    }
}

__global__ void __launch_bounds__(BLOCK) end_kernel(struct loss_state s, size_t rows, float *loss)
{
    size_t r = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    if (r < rows) {
        loss[r] = logf(s.sum[r]) + (s.top[r] - s.at_target[r]);
    }
}

__global__ void __launch_bounds__(BLOCK)
    gradient_kernel(struct loss_state s, const float *logits, size_t cols, size_t first_col,
                    const int32_t *target, float scale, uint16_t *gradient)
{
    const size_t r = blockIdx.x, at = (size_t)target[r] - first_col;
    const float top = s.top[r], share = scale / s.sum[r];
    for (size_t c = threadIdx.x * EIGHT; c < cols; c += BLOCK * EIGHT) {
        float v[EIGHT];
        load_floats<EIGHT>(v, logits + r * cols + c);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            v[i] = share * expf(v[i] - top) - (c + (size_t)i == at ? scale : 0.0f);
        }
        save(gradient + r * cols + c, v);
    }
}

/* op.h's: whole rows, the gradient in their place. */
__global__ void __launch_bounds__(BLOCK)
    whole_kernel(struct mat logits, const int32_t *target, float scale, float *loss)
{
    __shared__ float shared[BLOCK / WARP];
    const size_t r = blockIdx.x, n = logits.cols, at_col = (size_t)target[r];
    float *x = logits.data + r * logits.ld;
    float top = -3.402823466e38f, sum = 0;
    for (size_t c = threadIdx.x; c < n; c += BLOCK) {
        top = fmaxf(top, x[c]);
    }
    top = block_max(top, shared);
    for (size_t c = threadIdx.x; c < n; c += BLOCK) {
        sum += expf(x[c] - top);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        loss[r] = logf(sum) + (top - x[at_col]);
    }
    __syncthreads();
    if (scale != 0) {
        for (size_t c = threadIdx.x; c < n; c += BLOCK) {
            x[c] = scale / sum * expf(x[c] - top) - (c == at_col ? scale : 0.0f);
        }
    }
}
} // namespace

int loss_begin(struct loss_state s, size_t rows, struct CUstream_st *stream)
{
    return rows == 0 ? 0 : LAUNCH(begin_kernel, blocks_for(rows, BLOCK), BLOCK, 0, stream, s, rows);
}

int loss_add(struct loss_state s, const float *logits, size_t rows, size_t cols, size_t first_col,
             const int32_t *target, struct CUstream_st *stream)
{
    return rows == 0 ? 0
                     : LAUNCH(add_kernel, (unsigned)rows, BLOCK, 0, stream, s, logits, cols,
                              first_col, target);
}

int loss_end(struct loss_state s, size_t rows, float *loss, struct CUstream_st *stream)
{
    return rows == 0 ? 0
                     : LAUNCH(end_kernel, blocks_for(rows, BLOCK), BLOCK, 0, stream, s, rows, loss);
}

int loss_gradient(struct loss_state s, const float *logits, size_t rows, size_t cols,
                  size_t first_col, const int32_t *target, float scale, uint16_t *gradient,
                  struct CUstream_st *stream)
{
    return rows == 0 ? 0
                     : LAUNCH(gradient_kernel, (unsigned)rows, BLOCK, 0, stream, s, logits, cols,
                              first_col, target, scale, gradient);
}

void ops_cross_entropy(struct mat logits, const int32_t *target, float scale, float *loss)
{
    if (logits.rows > 0) {
        state_check(LAUNCH(whole_kernel, (unsigned)logits.rows, BLOCK, 0, cuda_state.stream, logits,
                           target, scale, loss),
                    "cross-entropy");
    }
}
