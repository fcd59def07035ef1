#include "trainer/cuda/swiglu.h"

#include "trainer/cuda/codes.cuh"
#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
__device__ __forceinline__ float silu_times(float gate, float up)
{
    return gate * sigmoid(gate) * up;
}

__device__ __forceinline__ void gradient(float gate, float up, float dout, float *dgate, float *dup,
                                         float *out)
{
    float s = sigmoid(gate);
    float silu = gate * s;
    *out = silu * up;
    *dup = dout * silu;
    *dgate = dout * up * (s + silu * (1.0f - s));
}

struct Bf16Rows {
    const uint16_t *x;
    __device__ __forceinline__ void get(float *v, size_t row, size_t, size_t col, size_t cols) const
    {
        load(v, x + row * cols + col);
    }
};

struct KeptRows {
    struct fp8_codes x;
    __device__ __forceinline__ void get(float *v, size_t row, size_t rows, size_t col,
                                        size_t cols) const
    {
        load_codes(v, x.code + row * cols + col, x.scale[col / TILE * rows + row]);
    }
};

template <class Source>
__global__ void __launch_bounds__(BLOCK)
    forward_kernel(Source gu, size_t rows, size_t cols, uint16_t *out, struct fp8_codes row,
                   size_t row_lanes)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    size_t r = i / row_lanes, c = i % row_lanes * EIGHT;
    bool inside = r < rows && c < cols;
    float v[EIGHT] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (inside) {
        float gate[EIGHT], up[EIGHT];
        gu.get(gate, r, rows, c, 2 * cols);
        gu.get(up, r, rows, cols + c, 2 * cols);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            v[j] = bf16_round(silu_times(gate[j], up[j]));
        }
        if (out != NULL) {
            save(out + r * cols + c, v);
        }
    }
    if (row.code != NULL) {
        save_row_codes(v, inside, r, rows, c, cols, false, row.code, row.scale);
    }
}

template <class Source>
__global__ void __launch_bounds__(BLOCK)
    backward_kernel(Source gu, const uint16_t *dout, size_t rows, size_t cols, uint16_t *dgu,
                    uint16_t *out)
{
    size_t i = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * EIGHT;
    if (i >= rows * cols) {
        return;
    }
    size_t r = i / cols, c = i % cols;
    float gate[EIGHT], up[EIGHT], d[EIGHT], dgate[EIGHT], dup[EIGHT], v[EIGHT];
    gu.get(gate, r, rows, c, 2 * cols);
    gu.get(up, r, rows, cols + c, 2 * cols);
    load(d, dout + i);
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        gradient(gate[j], up[j], d[j], &dgate[j], &dup[j], &v[j]);
    }
    save(dgu + r * 2 * cols + c, dgate);
    save(dgu + r * 2 * cols + cols + c, dup);
    if (out != NULL) {
        save(out + i, v);
    }
}

struct Forward {
    struct mat gu, out;
    __device__ void operator()(size_t row, size_t col) const
    {
        *at(out, row, col) = silu_times(*at(gu, row, col), *at(gu, row, out.cols + col));
    }
};

struct Backward {
    struct mat gu, dout, dgu, out;
    __device__ void operator()(size_t row, size_t col) const
    {
        size_t n = out.cols;
        float dgate, dup, v;
        gradient(*at(gu, row, col), *at(gu, row, n + col), *at(dout, row, col), &dgate, &dup, &v);
        *at(dgu, row, col) = dgate;
        *at(dgu, row, n + col) = dup;
        *at(out, row, col) = v;
    }
};

template <class Source>
int forward(const Source &gu, size_t rows, size_t cols, uint16_t *out, struct fp8_codes row,
            struct CUstream_st *stream)
{
    auto kernel = forward_kernel<Source>;
    size_t lanes = (cols + TILE - 1) / TILE * (TILE / EIGHT);
    unsigned blocks = blocks_for(rows * lanes, BLOCK);
    return blocks == 0 ? 0
                       : LAUNCH(kernel, blocks, BLOCK, 0, stream, gu, rows, cols, out, row, lanes);
}

template <class Source>
int backward(const Source &gu, const uint16_t *dout, size_t rows, size_t cols, uint16_t *dgu,
             uint16_t *out, struct CUstream_st *stream)
{
    auto kernel = backward_kernel<Source>;
    unsigned blocks = blocks_for(rows * cols, BLOCK * EIGHT);
    return blocks == 0 ? 0
                       : LAUNCH(kernel, blocks, BLOCK, 0, stream, gu, dout, rows, cols, dgu, out);
}
} // namespace

int swiglu_forward(const uint16_t *gu, size_t rows, size_t cols, uint16_t *out,
                   struct fp8_codes row, struct CUstream_st *stream)
{
    return forward(Bf16Rows{gu}, rows, cols, out, row, stream);
}

int swiglu_forward_kept(struct fp8_codes gu, size_t rows, size_t cols, uint16_t *out,
                        struct fp8_codes row, struct CUstream_st *stream)
{
    return forward(KeptRows{gu}, rows, cols, out, row, stream);
}

int swiglu_backward(const uint16_t *gu, const uint16_t *dout, size_t rows, size_t cols,
                    uint16_t *dgu, uint16_t *out, struct CUstream_st *stream)
{
    return backward(Bf16Rows{gu}, dout, rows, cols, dgu, out, stream);
}

int swiglu_backward_kept(struct fp8_codes gu, const uint16_t *dout, size_t rows, size_t cols,
                         uint16_t *dgu, uint16_t *out, struct CUstream_st *stream)
{
    return backward(KeptRows{gu}, dout, rows, cols, dgu, out, stream);
}

void ops_swiglu(struct mat gu, struct mat out)
{
    each(Forward{gu, out}, out.rows, out.cols, "swiglu");
}

void ops_swiglu_backward(struct mat gu, struct mat dout, struct mat dgu, struct mat out)
{
    each(Backward{gu, dout, dgu, out}, out.rows, out.cols, "swiglu backward");
}
