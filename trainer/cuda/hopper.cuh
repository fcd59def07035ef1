/* What only Hopper has: barriers that count bytes, the copy engine, and products by a warpgroup out
 * of shared memory. Off the GPU tests/gpu/emulate_hopper.hh stands for all of it. */
#ifndef TRAINER_CUDA_HOPPER_CUH
#define TRAINER_CUDA_HOPPER_CUH

#include "trainer/cuda/device.cuh"
#include "trainer/cuda/tensor_map.h"

#define WARPGROUP 128
/* A warpgroup's share of a 64 x 128 product: element (row, col) of thread t's number 4 j + 2 h + i
 * is row = 16 (t / 32) + t % 32 / 4 + 8 h, col = 8 j + 2 (t % 4) + i. */
#define ACCUMULATORS 64

#ifdef __CUDACC__

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void barrier_init(uint64_t *bar, unsigned arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)),
                 "r"(arrivals));
}

/* Makes initialised barriers visible to the copy engine. */
static __device__ __forceinline__ void barrier_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}

static __device__ __forceinline__ void barrier_arrive_expect(uint64_t *bar, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)),
        "r"(bytes)
        : "memory");
}

/* Until the phase of that parity is over. */
static __device__ __forceinline__ void barrier_wait(uint64_t *bar, unsigned parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

/* The box at (col, row) to shared memory; its bytes count at the barrier. */
static __device__ __forceinline__ void copy_box(void *to, const struct tensor_map *map,
                                                unsigned col, unsigned row, uint64_t *bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
                 "l"(map), "r"(col), "r"(row), "r"(shared_address(bar))
                 : "memory");
}

/* bytes: a multiple of 16; both ends 16-byte aligned. */
static __device__ __forceinline__ void copy_bytes(void *to, const void *from, unsigned bytes,
                                                  uint64_t *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(bar))
                 : "memory");
}

template <int count> static __device__ __forceinline__ void registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count> static __device__ __forceinline__ void registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

/* A tile of rows of 128 bytes, swizzled, that begins on 1024 bytes; `bytes` into its rows. */
static __device__ __forceinline__ uint64_t tile_descriptor(const void *tile, unsigned bytes)
{
    /* start / 16; 1024 bytes from eight rows to the next eight; 128-byte swizzle */
    return (uint64_t)((shared_address(tile) + bytes) >> 4 & 0x3FFF) | (uint64_t)1 << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ void product_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void product_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void product_wait(float (&d)[ACCUMULATORS])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < ACCUMULATORS; i++) { /* not to be read before this */
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

#define D4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)

/* d (+)= a b^T over 32 columns: a 64 rows, b 128. */
static __device__ __forceinline__ void product_step(float (&d)[ACCUMULATORS], uint64_t a,
                                                    uint64_t b, int add)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, add, 1, 1;\n"
                 "}\n"
                 : D16(0), D16(16), D16(32), D16(48)
                 : "l"(a), "l"(b), "r"(add));
}

#undef D4
#undef D16

#else
#include "tests/gpu/emulate_hopper.hh"
#endif

#endif
