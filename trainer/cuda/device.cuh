/* What the kernels are written in. Under nvcc it is CUDA. Any other C++ compiler runs the same
 * kernels on the CPU, every thread of a block a fiber of its own, by the header that
 * DEVICE_EMULATION names (tests/gpu/emulate.hh): so their logic is tested where there is no GPU.
 * What exists in hardware only is below or in hopper.cuh, each with its counterpart there.
 *
 * BF16 numbers are uint16_t, E4M3 codes uint8_t. A kernel for rows of T moves Lane<T>::width
 * elements a thread at once: 8 BF16 are 16 bytes, the widest access there is; FP32, which only the
 * emulation of low precision uses, goes one by one and so needs no alignment. */
#ifndef TRAINER_CUDA_DEVICE_CUH
#define TRAINER_CUDA_DEVICE_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
/* Starts a kernel; its value is the runtime's error code. */
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    (kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__), (int)cudaGetLastError())
#else
#include DEVICE_EMULATION
#endif

#include "trainer/e5m6.h"
#include "trainer/half.h"

#define WARP     32
#define ALL      0xFFFFFFFFu
#define TILE     FP8_TILE
#define NOTHING      /* an empty macro argument */
#define BLOCK    256 /* threads, unless a kernel says otherwise */
#define GRID_TOP 65535u

static inline unsigned blocks_for(size_t items, size_t each)
{
    return (unsigned)((items + each - 1) / each);
}

/* ---- numbers */

/* Two floats as BF16, the first in the low half. */
static __device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
#ifdef __CUDACC__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return bf16_encode(low) | (uint32_t)bf16_encode(high) << 16;
#endif
}

/* Four floats as E4M3, the first in the lowest byte; beyond 448 becomes 448. */
static __device__ __forceinline__ uint32_t fp8_quad(float a, float b, float c, float d)
{
#ifdef __CUDACC__
    uint16_t low, high;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
    return low | (uint32_t)high << 16;
#else
    return fp8_encode(a) | (uint32_t)fp8_encode(b) << 8 | (uint32_t)fp8_encode(c) << 16 |
           (uint32_t)fp8_encode(d) << 24;
#endif
}

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* ---- rows, several elements at once */

template <class T> struct Lane;
template <> struct Lane<float> {
    static constexpr int width = 1;
};
template <> struct Lane<uint16_t> {
    static constexpr int width = 8;
};

static __device__ __forceinline__ void load(float *v, const float *p)
{
    v[0] = *p;
}

static __device__ __forceinline__ void save(float *p, const float *v)
{
    *p = v[0];
}

static __device__ __forceinline__ void load(float *v, const uint16_t *p)
{
    const uint4 raw = *(const uint4 *)p;
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = float_of_bits(word[i] << 16);
        v[2 * i + 1] = float_of_bits(word[i] & 0xFFFF0000u);
    }
}

static __device__ __forceinline__ void save(uint16_t *p, const float *v)
{
    *(uint4 *)p = make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]),
                             bf16_pair(v[6], v[7]));
}

/* Width FP32 numbers that go with a row of T, such as weights. */
template <int width> static __device__ __forceinline__ void load_floats(float *v, const float *p)
{
    if constexpr (width % 4 == 0) {
#pragma unroll
        for (int i = 0; i < width; i += 4) {
            const float4 f = *(const float4 *)(p + i);
            v[i] = f.x;
            v[i + 1] = f.y;
            v[i + 2] = f.z;
            v[i + 3] = f.w;
        }
    } else {
        v[0] = *p;
    }
}

/* ---- sums in a fixed order */

template <class T> static __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(ALL, x, lane);
    }
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL, x, lane));
    }
    return x;
}

/* Of all threads of the block, to all of them. shared: room for one T a warp, used again after the
 * call's last barrier only. */
template <class T> static __device__ __forceinline__ T block_sum(T x, T *shared)
{
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    T sum = shared[0];
    for (unsigned w = 1; w < blockDim.x / WARP; w++) {
        sum += shared[w];
    }
    return sum;
}

static __device__ __forceinline__ float block_max(float x, float *shared)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float top = shared[0];
    for (unsigned w = 1; w < blockDim.x / WARP; w++) {
        top = fmaxf(top, shared[w]);
    }
    return top;
}

#endif
