#include "trainer/cuda/optimiser.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

/* ---- sums: each of 256 blocks adds a fixed set of elements, one block adds the blocks */

static __device__ double four(const float4 v, bool squares)
{
    double a = v.x, b = v.y, c = v.z, d = v.w;
    return squares ? (a * a + b * b) + (c * c + d * d) : (a + b) + (c + d);
}

__global__ void __launch_bounds__(BLOCK)
    sum_kernel(const float *x, size_t count, bool squares, double *partial)
{
    __shared__ double shared[BLOCK / WARP];
    size_t thread = (size_t)blockIdx.x * BLOCK + threadIdx.x, threads = (size_t)gridDim.x * BLOCK;
    double sum = 0;
    /* to the first 16-byte boundary one by one, then four at once */
    size_t head = (16 - (uintptr_t)x % 16) % 16 / sizeof(float);
    head = head < count ? head : count;
    size_t quads = (count - head) / 4;
    const float4 *quad = (const float4 *)(x + head);
#pragma unroll 4
    for (size_t i = thread; i < quads; i += threads) {
        sum += four(quad[i], squares);
    }
    size_t rest = head + quads * 4;
    if (thread < head) {
        double v = x[thread];
        sum += squares ? v * v : v;
    }
    if (thread < count - rest) {
        double v = x[rest + thread];
        sum += squares ? v * v : v;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(BLOCK) sum_partials_kernel(const double *partial, double *result)
{
    __shared__ double shared[BLOCK / WARP];
    double sum = block_sum(partial[threadIdx.x], shared);
    if (threadIdx.x == 0) {
        *result = sum;
    }
}

int sum_f32(const float *x, size_t count, int squares, double *partial, double *result,
            struct CUstream_st *stream)
{
    static_assert(STATE_PARTIALS == BLOCK, "one thread of the last block adds one partial sum");
    int rc = LAUNCH(sum_kernel, STATE_PARTIALS, BLOCK, 0, stream, x, count, squares != 0, partial);
    return rc != 0 ? rc : LAUNCH(sum_partials_kernel, 1, BLOCK, 0, stream, partial, result);
}

static double sum_now(const float *x, size_t count, int squares)
{
    state_check(sum_f32(x, count, squares, cuda_state.partial, cuda_state.sums, cuda_state.stream),
                "sum");
    state_check((int)cudaStreamSynchronize(cuda_state.stream), "wait for the device");
    return *cuda_state.sums;
}

double ops_sum_squares(const float *x, size_t count)
{
    return sum_now(x, count, 1);
}

double ops_sum(const float *x, size_t count)
{
    return sum_now(x, count, 0);
}

/* ---- AdamW */

struct adamw_step adamw_step(float grad_scale, float lr, double beta1, double beta2, float eps,
                             float weight_decay, float correction1, float correction2)
{
    struct adamw_step s;
    s.grad_scale = grad_scale;
    s.lr = lr;
    s.eps = eps;
    s.weight_decay = weight_decay;
    s.keep1 = (float)beta1;
    s.new1 = (float)(1.0 - beta1);
    s.keep2 = (float)beta2;
    s.new2 = (float)(1.0 - beta2);
    s.correct1 = 1.0f / correction1;
    s.correct2 = 1.0f / correction2;
    return s;
}

static __device__ __forceinline__ void update(const struct adamw_step &s, float *weight, float *m,
                                              float *v, float grad)
{
    float g = grad * s.grad_scale;
    *m = s.keep1 * *m + s.new1 * g;
    *v = s.keep2 * *v + s.new2 * g * g;
    float step = *m * s.correct1 / (sqrtf(*v * s.correct2) + s.eps);
    *weight -= s.lr * (step + s.weight_decay * *weight);
}

struct Adamw {
    struct adamw_step step;
    float *weight, *m, *v;
    const float *grad;
    __device__ void operator()(size_t, size_t i) const
    {
        update(step, weight + i, m + i, v + i, grad[i]);
    }
};

void ops_adamw(float *weight, float *m, float *v, const float *grad, size_t count, float grad_scale,
               float lr, double beta1, double beta2, float eps, float weight_decay,
               float correction1, float correction2)
{
    struct adamw_step step =
        adamw_step(grad_scale, lr, beta1, beta2, eps, weight_decay, correction1, correction2);
    each(Adamw{step, weight, m, v, grad}, 1, count, "adamw");
}

static __device__ __forceinline__ void save_eight(float *p, const float *v)
{
    *(float4 *)p = float4{v[0], v[1], v[2], v[3]};
    *(float4 *)(p + 4) = float4{v[4], v[5], v[6], v[7]};
}

__global__ void __launch_bounds__(BLOCK)
    adamw_kernel(float *weight, uint16_t *m, uint16_t *v, const float *grad, uint16_t *low,
                 size_t count, struct adamw_step step)
{
    size_t i = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * 8;
    if (i >= count) {
        return;
    }
    float w[8], g[8], first[8], second[8];
    load_floats<8>(w, weight + i);
    load_floats<8>(g, grad + i);
    load(first, m + i);
    load(second, v + i);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        update(step, &w[j], &first[j], &second[j], g[j]);
    }
    save_eight(weight + i, w);
    save(m + i, first);
    save(v + i, second);
    if (low != NULL) {
        save(low + i, w);
    }
}

int adamw_bf16(float *weight, uint16_t *m, uint16_t *v, const float *grad, uint16_t *low,
               size_t count, const struct adamw_step *step, struct CUstream_st *stream)
{
    if (count == 0) {
        return 0;
    }
    return LAUNCH(adamw_kernel, blocks_for(count, BLOCK * 8), BLOCK, 0, stream, weight, m, v, grad,
                  low, count, *step);
}
