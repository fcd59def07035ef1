#include "trainer/cuda/softmax.h"

#include "trainer/cuda/device.cuh"

namespace
{
/* One block a row, (query, head). */
__global__ void __launch_bounds__(BLOCK) softmax_kernel(float *s, size_t seq, bool bf16, float *lse)
{
    __shared__ float shared[BLOCK / WARP];
    const size_t q = blockIdx.x, n = q + 1, row = blockIdx.y * seq + q;
    float *x = s + row * seq, top = -3.402823466e38f, sum = 0;
    for (size_t i = threadIdx.x; i < n; i += BLOCK) {
        top = fmaxf(top, x[i]);
    }
    top = block_max(top, shared);
    for (size_t i = threadIdx.x; i < n; i += BLOCK) {
        x[i] = expf(x[i] - top);
        sum += x[i];
    }
    sum = block_sum(sum, shared);
    const float share = 1.0f / sum;
    for (size_t i = threadIdx.x; i < seq; i += BLOCK) {
        float p = i < n ? x[i] * share : 0.0f;
        x[i] = bf16 ? bf16_round(p) : p;
    }
    if (threadIdx.x == 0) {
        lse[row] = top + logf(sum);
    }
}

__global__ void __launch_bounds__(BLOCK)
    backward_kernel(float *s, float *ds, size_t seq, size_t v, float scale, bool bf16,
                    const float *lse, struct op_heads out, struct op_heads dout)
{
    __shared__ float shared[BLOCK / WARP];
    const size_t q = blockIdx.x, head = blockIdx.y, n = q + 1, row = head * seq + q;
    const float *o = out.data + q * out.row + head * out.head;
    const float *d = dout.data + q * dout.row + head * dout.head;
    float delta = 0;
    for (size_t i = threadIdx.x; i < v; i += BLOCK) {
        delta += o[i] * d[i];
    }
    delta = block_sum(delta, shared);
    const float shift = lse[row];
    for (size_t i = threadIdx.x; i < seq; i += BLOCK) {
        float p = i < n ? expf(s[row * seq + i] - shift) : 0.0f;
        float dp = i < n ? p * (ds[row * seq + i] - delta) * scale : 0.0f;
        s[row * seq + i] = bf16 ? bf16_round(p) : p;
        ds[row * seq + i] = bf16 ? bf16_round(dp) : dp;
    }
}
} // namespace

int softmax_causal(float *s, size_t heads, size_t seq, bool bf16, float *lse,
                   struct CUstream_st *stream)
{
    dim3 grid((unsigned)seq, (unsigned)heads);
    return LAUNCH(softmax_kernel, grid, BLOCK, 0, stream, s, seq, bf16, lse);
}

int softmax_backward(float *s, float *ds, size_t heads, size_t seq, size_t v, float scale,
                     bool bf16, const float *lse, struct op_heads out, struct op_heads dout,
                     struct CUstream_st *stream)
{
    dim3 grid((unsigned)seq, (unsigned)heads);
    return LAUNCH(backward_kernel, grid, BLOCK, 0, stream, s, ds, seq, v, scale, bf16, lse, out,
                  dout);
}
