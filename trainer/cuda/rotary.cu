#include "trainer/cuda/rotary.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
constexpr int EIGHT = Lane<uint16_t>::width;

/* One pair by (cos, sin). */
__device__ __forceinline__ void turn(float *even, float *odd, float c, float s)
{
    float x = *even, y = *odd;
    *even = x * c - y * s;
    *odd = x * s + y * c;
}

/* Eight neighbours, the first a multiple of eight; sign -1 turns back. */
__device__ __forceinline__ void turn_eight(float *v, const float *table, float sign)
{
    float t[EIGHT];
    load_floats<EIGHT>(t, table);
#pragma unroll
    for (int i = 0; i < EIGHT; i += 2) {
        turn(&v[i], &v[i + 1], t[i], sign * t[i + 1]);
    }
}

__global__ void __launch_bounds__(BLOCK)
    turn_kernel(struct half_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
                const float *table, float sign)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x, parts = dim / EIGHT;
    size_t part = i % parts, head = i / parts % heads, row = i / parts / heads;
    if (row < rows) {
        uint16_t *p = x.data + row * x.row + head * x.head + part * EIGHT;
        float v[EIGHT];
        load(v, p);
        turn_eight(v, table + row % seq * dim + part * EIGHT, sign);
        save(p, v);
    }
}

__global__ void __launch_bounds__(BLOCK)
    keys_kernel(struct half_heads nope, size_t nope_dim, const uint16_t *shared, size_t ld_shared,
                size_t dim, size_t rows, size_t seq, size_t heads, const float *table,
                struct half_heads k)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x, parts = (nope_dim + dim) / EIGHT;
    size_t part = i % parts, head = i / parts % heads, row = i / parts / heads;
    if (row >= rows) {
        return;
    }
    size_t col = part * EIGHT;
    float v[EIGHT];
    if (col < nope_dim) {
        load(v, nope.data + row * nope.row + head * nope.head + col);
    } else {
        col -= nope_dim;
        load(v, shared + row * ld_shared + col);
        turn_eight(v, table + row % seq * dim + col, 1);
    }
    save(k.data + row * k.row + head * k.head + part * EIGHT, v);
}

/* One block a token. The shared part: thread (lane, group) adds up the heads group, group + groups
 * ...; then the groups are added in order. */
__global__ void __launch_bounds__(BLOCK)
    keys_backward_kernel(struct half_heads dk, size_t nope_dim, size_t dim, size_t seq,
                         size_t heads, const float *table, struct half_heads dnope,
                         uint16_t *dshared, size_t ld_shared)
{
    __shared__ float sums[BLOCK][EIGHT + 1];
    const size_t row = blockIdx.x, parts = nope_dim / EIGHT;
    for (size_t i = threadIdx.x; i < heads * parts; i += BLOCK) {
        size_t head = i / parts, col = i % parts * EIGHT;
        float v[EIGHT];
        load(v, dk.data + row * dk.row + head * dk.head + col);
        save(dnope.data + row * dnope.row + head * dnope.head + col, v);
    }
    const size_t lanes = dim / EIGHT, groups = BLOCK / lanes;
    const size_t lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    float sum[EIGHT] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (size_t head = group; head < heads && group < groups; head += groups) {
        float v[EIGHT];
        load(v, dk.data + row * dk.row + head * dk.head + nope_dim + lane * EIGHT);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            sum[i] += v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        sums[threadIdx.x][i] = sum[i];
    }
    __syncthreads();
    if (threadIdx.x < lanes) {
        for (size_t g = 1; g < groups; g++) {
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                sum[i] += sums[g * lanes + lane][i];
            }
        }
        turn_eight(sum, table + row % seq * dim + lane * EIGHT, -1);
        save(dshared + row * ld_shared + lane * EIGHT, sum);
    }
}

/* ---- FP32 */

struct Turn {
    struct op_heads x;
    size_t seq, dim, pairs;
    const float *table;
    float sign;
    __device__ void operator()(size_t row, size_t i) const
    {
        size_t head = i / pairs, pair = i % pairs;
        const float *t = table + row % seq * dim + 2 * pair;
        float *p = x.data + row * x.row + head * x.head + 2 * pair;
        turn(p, p + 1, t[0], sign * t[1]);
    }
};

struct Keys {
    struct op_heads nope, k;
    struct mat shared;
    size_t nope_dim, all;
    __device__ void operator()(size_t row, size_t i) const
    {
        size_t head = i / all, col = i % all;
        k.data[row * k.row + head * k.head + col] =
            col < nope_dim ? nope.data[row * nope.row + head * nope.head + col]
                           : *at(shared, row, col - nope_dim);
    }
};

struct KeysBackward {
    struct op_heads dk, dnope;
    struct mat dshared;
    size_t nope_dim, heads;
    __device__ void operator()(size_t row, size_t i) const
    {
        const float *from = dk.data + row * dk.row;
        if (i < heads * nope_dim) {
            size_t head = i / nope_dim, col = i % nope_dim;
            dnope.data[row * dnope.row + head * dnope.head + col] = from[head * dk.head + col];
            return;
        }
        size_t col = i - heads * nope_dim;
        float sum = 0;
        for (size_t head = 0; head < heads; head++) {
            sum += from[head * dk.head + nope_dim + col];
        }
        *at(dshared, row, col) = sum;
    }
};
} // namespace

int rotary(struct half_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
           const float *table, int inverse, struct CUstream_st *stream)
{
    unsigned blocks = blocks_for(rows * heads * dim / EIGHT, BLOCK);
    return blocks == 0 ? 0
                       : LAUNCH(turn_kernel, blocks, BLOCK, 0, stream, x, rows, seq, heads, dim,
                                table, inverse != 0 ? -1.0f : 1.0f);
}

int rotary_keys(struct half_heads nope, size_t nope_dim, const uint16_t *shared, size_t ld_shared,
                size_t dim, size_t rows, size_t seq, size_t heads, const float *table,
                struct half_heads k, struct CUstream_st *stream)
{
    unsigned blocks = blocks_for(rows * heads * (nope_dim + dim) / EIGHT, BLOCK);
    return blocks == 0 ? 0
                       : LAUNCH(keys_kernel, blocks, BLOCK, 0, stream, nope, nope_dim, shared,
                                ld_shared, dim, rows, seq, heads, table, k);
}

int rotary_keys_backward(struct half_heads dk, size_t nope_dim, size_t dim, size_t rows, size_t seq,
                         size_t heads, const float *table, struct half_heads dnope,
                         uint16_t *dshared, size_t ld_shared, struct CUstream_st *stream)
{
    return rows == 0 ? 0
                     : LAUNCH(keys_backward_kernel, (unsigned)rows, BLOCK, 0, stream, dk, nope_dim,
                              dim, seq, heads, table, dnope, dshared, ld_shared);
}

void ops_rope(struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
              const float *table, bool inverse)
{
    each(Turn{x, seq, dim, dim / 2, table, inverse ? -1.0f : 1.0f}, rows, heads * (dim / 2),
         "rope");
}

void ops_keys(struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads,
              struct op_heads k)
{
    size_t all = nope_dim + shared.cols;
    each(Keys{nope, k, shared, nope_dim, all}, shared.rows, heads * all, "keys");
}

void ops_keys_backward(struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim,
                       struct mat dshared)
{
    each(KeysBackward{dk, dnope, dshared, nope_dim, heads}, dshared.rows,
         heads * nope_dim + dshared.cols, "keys backward");
}
