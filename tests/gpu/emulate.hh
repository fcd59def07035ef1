/* CUDA for a C++ compiler: the kernels of trainer/cuda run on the CPU, one block after the other,
 * every thread of a block a fiber. A fiber runs until it waits for others (a barrier, a shuffle),
 * in an order drawn anew for every round, so that a missing barrier shows in the results. What the
 * kernels need of CUDA is here and no more; a thread that leaves its warp or block waiting ends the
 * process. Shared memory and freed device memory hold what the last user left there; new device
 * memory is poisoned. */
#ifndef TESTS_GPU_EMULATE_H
#define TESTS_GPU_EMULATE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __grid_constant__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return uint4{x, y, z, w};
}
static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
    return uint2{x, y};
}
static inline float2 make_float2(float x, float y)
{
    return float2{x, y};
}

struct emu_thread_view {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern emu_thread_view emu_now; /* of the fiber that runs */
#define threadIdx (emu_now.thread)
#define blockIdx  (emu_now.block)
#define blockDim  (emu_now.block_dim)
#define gridDim   (emu_now.grid_dim)

/* ---- what a fiber may wait for */
void emu_block_barrier(void);
void emu_warp_barrier(void);
int emu_block_any(int predicate);
/* Lets others run: between two looks at something another thread will change. */
void emu_yield(void);
/* A named barrier of `threads` threads. */
void emu_named_barrier(unsigned id, unsigned threads);
/* The value that lane `from` of the warp gave. */
uint64_t emu_exchange(uint64_t mine, unsigned from);
/* The fiber's block's dynamic shared memory. */
unsigned char *emu_shared(void);

#define __syncthreads()             emu_block_barrier()
#define __syncwarp()                emu_warp_barrier()
#define __syncthreads_or(predicate) emu_block_any(predicate)
#define DYNAMIC_SHARED(name)        unsigned char *name = emu_shared()

static inline unsigned emu_lane(void)
{
    return threadIdx.x % 32;
}

template <class T> static inline T emu_from(T x, unsigned lane)
{
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emu_exchange(bits, lane);
    memcpy(&x, &bits, sizeof x);
    return x;
}

template <class T> static inline T __shfl_xor_sync(unsigned, T x, int mask)
{
    return emu_from(x, emu_lane() ^ (unsigned)mask);
}

template <class T> static inline T __shfl_sync(unsigned, T x, int lane)
{
    return emu_from(x, (unsigned)lane % 32);
}

static inline unsigned __ballot_sync(unsigned, int predicate)
{
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        all |= emu_from(predicate != 0 ? 1u : 0u, lane) << lane;
    }
    return all;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int atomicAdd(int *p, int x)
{
    int before = *p;
    *p += x;
    return before;
}

/* ---- launches and the runtime */
void emu_launch(const std::function<void()> &kernel, dim3 grid, dim3 block, size_t shared);
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                           \
    ((void)(stream), emu_launch([=] { (kernel)(__VA_ARGS__); }, (grid), (block), (shared)), 0)

typedef struct CUstream_st *cudaStream_t;
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
static inline int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int, cudaStream_t)
{
    memmove(to, from, bytes);
    return 0;
}
static inline int cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    memset(p, value, bytes);
    return 0;
}
static inline int cudaStreamSynchronize(cudaStream_t)
{
    return 0;
}
static inline int cudaGetLastError(void)
{
    return 0;
}
static inline const char *cudaGetErrorName(int)
{
    return "emulated";
}
static inline const char *cudaGetErrorString(int)
{
    return "emulated";
}
static inline int cudaMalloc(void **p, size_t bytes)
{
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*p != NULL) {
        memset(*p, 0xFF, bytes);
    }
    return *p == NULL;
}
static inline int cudaFree(void *p)
{
    free(p);
    return 0;
}
static inline int cudaMallocHost(void **p, size_t bytes)
{
    return cudaMalloc(p, bytes);
}
static inline int cudaMemGetInfo(size_t *left, size_t *all)
{
    *left = *all = 0;
    return 0;
}

#endif
