/* One thread an element: for what is too plain for a kernel of its own. */
#ifndef TRAINER_CUDA_EACH_CUH
#define TRAINER_CUDA_EACH_CUH

#include "trainer/cuda/device.cuh"
#include "trainer/cuda/state.h"
#include "trainer/op.h"

static __device__ __forceinline__ float *at(const struct mat &m, size_t row, size_t col)
{
    return m.data + row * m.ld + col;
}

/* f(row, col) for all of them. */
template <class F> __global__ void each_kernel(F f, size_t rows, size_t cols)
{
    size_t col = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (size_t row = blockIdx.y; row < rows && col < cols; row += gridDim.y) {
        f(row, col);
    }
}

template <class F> static void each(F f, size_t rows, size_t cols, const char *what)
{
    if (rows == 0 || cols == 0) {
        return;
    }
    unsigned threads = cols < BLOCK ? (unsigned)(cols + WARP - 1) / WARP * WARP : BLOCK;
    dim3 grid(blocks_for(cols, threads), rows < GRID_TOP ? (unsigned)rows : GRID_TOP);
    auto kernel = each_kernel<F>;
    state_check(LAUNCH(kernel, grid, threads, 0, cuda_state.stream, f, rows, cols), what);
}

#endif
