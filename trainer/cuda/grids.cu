/* op.h's `quantise`: FP32 numbers put on a grid, any shape, in place too. */
#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
__device__ float grid_scale(enum op_format format, uint32_t top)
{
    switch (format) {
    case OP_FP8_ROW_POW2:
    case OP_FP8_COL_POW2:
        return fp8_scale_pow2(top);
    case OP_E5M6_ROW:
    case OP_E5M6_COL:
        return e5m6_scale(top);
    default:
        return fp8_scale(top);
    }
}

__device__ float grid_round(enum op_format format, float x, float scale)
{
    bool e5m6 = format == OP_E5M6_ROW || format == OP_E5M6_COL;
    return (e5m6 ? e5m6_round(x / scale) : fp8_round(x / scale)) * scale;
}

__device__ uint32_t larger(uint32_t top, float x)
{
    uint32_t bits = float_bits(x) & 0x7FFFFFFFu;
    return bits > top ? bits : top;
}

/* One tile of `height` x `width`: the block finds its largest, then rounds. A thread reads and
 * writes the same elements, so y may be x. */
__global__ void __launch_bounds__(BLOCK)
    tile_kernel(enum op_format format, struct mat x, struct mat y, size_t height, size_t width)
{
    __shared__ uint32_t shared[BLOCK / WARP];
    size_t row = blockIdx.y * height, col = blockIdx.x * width;
    size_t rows = x.rows - row < height ? x.rows - row : height;
    size_t cols = x.cols - col < width ? x.cols - col : width;
    uint32_t top = 0;
    for (size_t i = threadIdx.x; i < rows * cols; i += blockDim.x) {
        top = larger(top, *at(x, row + i / cols, col + i % cols));
    }
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        uint32_t other = __shfl_xor_sync(ALL, top, lane);
        top = other > top ? other : top;
    }
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = top;
    }
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / WARP; w++) {
        top = shared[w] > top ? shared[w] : top;
    }
    float scale = grid_scale(format, top);
    for (size_t i = threadIdx.x; i < rows * cols; i += blockDim.x) {
        *at(y, row + i / cols, col + i % cols) =
            grid_round(format, *at(x, row + i / cols, col + i % cols), scale);
    }
}

/* Tiles of one column: a thread each. */
__global__ void __launch_bounds__(BLOCK)
    column_kernel(enum op_format format, struct mat x, struct mat y)
{
    size_t col = (size_t)blockIdx.x * BLOCK + threadIdx.x, row = (size_t)blockIdx.y * TILE;
    size_t last = x.rows - row < TILE ? x.rows : row + TILE;
    if (col >= x.cols) {
        return;
    }
    uint32_t top = 0;
    for (size_t r = row; r < last; r++) {
        top = larger(top, *at(x, r, col));
    }
    float scale = grid_scale(format, top);
    for (size_t r = row; r < last; r++) {
        *at(y, r, col) = grid_round(format, *at(x, r, col), scale);
    }
}

struct Bf16 {
    struct mat x, y;
    __device__ void operator()(size_t row, size_t col) const
    {
        *at(y, row, col) = bf16_round(*at(x, row, col));
    }
};

/* A grid has at most 65535 blocks along y: many rows go in parts. */
void tiles(enum op_format format, struct mat x, struct mat y, size_t height, unsigned threads)
{
    for (size_t first = 0; first < x.rows && x.cols > 0; first += height * GRID_TOP) {
        size_t rows = x.rows - first < height * GRID_TOP ? x.rows - first : height * GRID_TOP;
        dim3 grid(blocks_for(x.cols, TILE), blocks_for(rows, height));
        state_check(LAUNCH(tile_kernel, grid, threads, 0, cuda_state.stream, format,
                           mat_rows(x, first, rows), mat_rows(y, first, rows), height, TILE),
                    "quantise");
    }
}

void columns(enum op_format format, struct mat x, struct mat y)
{
    if (x.rows > 0 && x.cols > 0) {
        dim3 grid(blocks_for(x.cols, BLOCK), blocks_for(x.rows, TILE));
        state_check(LAUNCH(column_kernel, grid, BLOCK, 0, cuda_state.stream, format, x, y),
                    "quantise columns");
    }
}
} // namespace

void ops_quantise(enum op_format format, struct op_groups groups, struct mat x, struct mat y)
{
    switch (format) {
    case OP_F32:
        if (x.data != y.data) {
            ops_copy(x, y);
        }
        break;
    case OP_BF16:
        each(Bf16{x, y}, x.rows, x.cols, "round to BF16");
        break;
    case OP_FP8_ROW:
    case OP_FP8_ROW_POW2:
    case OP_E5M6_ROW:
        tiles(format, x, y, 1, WARP);
        break;
    case OP_FP8_COL:
    case OP_FP8_COL_POW2:
    case OP_E5M6_COL:
        for (size_t g = 0; g < groups.count; g++) {
            size_t first = groups.offset[g], rows = groups.offset[g + 1] - first;
            columns(format, mat_rows(x, first, rows), mat_rows(y, first, rows));
        }
        break;
    case OP_FP8_BLOCK:
        tiles(format, x, y, TILE, BLOCK);
        break;
    }
}
