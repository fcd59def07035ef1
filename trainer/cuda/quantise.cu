/* A tile of 128 x 128 numbers is held in registers by 256 threads, 8 x 8 each: eight neighbours of
 * eight rows below each other, so that a thread's eight codes of a column are neighbours of the
 * transposed tile. That goes out by way of shared memory, whose 8-byte places are permuted by XOR
 * so that neither the writes nor the reads of a warp meet in a bank. */
#include "trainer/cuda/quantise.h"

#include "trainer/cuda/codes.cuh"
#include "trainer/cuda/tiles.h"

namespace
{
struct Tile {
    size_t first_row, rows, first_col, cols; /* rows and cols inside, up to 128 */
};

struct Place {
    unsigned row, col; /* of the thread's 8 x 8 inside the tile */
};

__device__ __forceinline__ Place place_of(unsigned thread)
{
    return Place{thread / 16 * 8, thread % 16 * 8};
}

/* ---- where the numbers come from: eight of a row */

struct Bf16Source {
    const uint16_t *x;
    size_t rows, cols;
    __device__ __forceinline__ void get(float *v, size_t row, size_t col) const
    {
        load(v, x + row * cols + col);
    }
};

struct FloatSource {
    const float *x;
    size_t rows, cols;
    __device__ __forceinline__ void get(float *v, size_t row, size_t col) const
    {
        load_floats<EIGHT>(v, x + row * cols + col);
    }
};

struct CodeSource {
    const uint8_t *code;
    const float *scale;
    size_t rows, cols;
    __device__ __forceinline__ void get(float *v, size_t row, size_t col) const
    {
        load_codes(v, code + row * cols + col, scale[col / TILE * rows + row]);
    }
};

template <class Source>
__device__ __forceinline__ void get_tile(float (&v)[EIGHT][EIGHT], const Source &source,
                                         const Tile &tile, Place p)
{
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        bool inside = p.row + (unsigned)i < tile.rows && p.col < tile.cols;
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            v[i][j] = 0;
        }
        if (inside) {
            source.get(v[i], tile.first_row + p.row + (unsigned)i, tile.first_col + p.col);
        }
    }
}

/* ---- the transposed tile */

/* The 8-byte place of rows [row, row + 8) of a column, row a multiple of 8. */
__device__ __forceinline__ unsigned turned_place(unsigned col, unsigned row)
{
    return col * TILE + (row / 8 ^ (col / 8 & 15)) * 8;
}

/* The thread's codes into shared memory, scales by column. */
__device__ __forceinline__ void turn(const float (&v)[EIGHT][EIGHT], Place p, const float *scale,
                                     unsigned char *shared)
{
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        float column[EIGHT];
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            column[i] = v[i][j];
        }
        *(uint2 *)(shared + turned_place(p.col + (unsigned)j, p.row)) =
            eight_codes(column, scale[j]);
    }
}

/* Out of shared memory: 16 rows of a column a time. code: of the tile's first column and row. */
__device__ __forceinline__ void save_turned(const unsigned char *shared, unsigned cols,
                                            uint8_t *code, size_t pitch, unsigned rows)
{
    for (unsigned i = threadIdx.x; i < TILE * 8; i += BLOCK) {
        unsigned col = i / 8, row = i % 8 * 16;
        if (col < cols && row < rows) {
            uint2 low = *(const uint2 *)(shared + turned_place(col, row));
            uint2 high = *(const uint2 *)(shared + turned_place(col, row + 8));
            *(uint4 *)(code + col * pitch + row) = make_uint4(low.x, low.y, high.x, high.y);
        }
    }
}

/* Scales of the thread's eight columns, and all 128 to out (NULL: nowhere). */
__device__ __forceinline__ void column_scales(const float (&v)[EIGHT][EIGHT], Place p, bool pow2,
                                              unsigned cols, float *scale, float *out)
{
    __shared__ uint32_t shared[BLOCK / WARP][TILE];
    uint32_t top[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        top[j] = 0;
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            uint32_t bits = float_bits(v[i][j]) & 0x7FFFFFFFu;
            top[j] = bits > top[j] ? bits : top[j];
        }
        uint32_t other = __shfl_xor_sync(ALL, top[j], 16); /* the warp's other eight rows */
        top[j] = other > top[j] ? other : top[j];
    }
    if (threadIdx.x % WARP < 16) {
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            shared[threadIdx.x / WARP][p.col + (unsigned)j] = top[j];
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        uint32_t all = 0;
#pragma unroll
        for (int w = 0; w < BLOCK / WARP; w++) {
            uint32_t bits = shared[w][p.col + (unsigned)j];
            all = bits > all ? bits : all;
        }
        scale[j] = scale_of(all, pow2);
        if (out != NULL && p.row == 0 && p.col + (unsigned)j < cols) {
            out[p.col + (unsigned)j] = scale[j];
        }
    }
}

/* ---- activations */

__global__ void __launch_bounds__(BLOCK)
    rows_kernel(Bf16Source x, bool pow2, uint8_t *code, float *scale, size_t row_lanes)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    size_t row = i / row_lanes, col = i % row_lanes * EIGHT;
    bool inside = row < x.rows && col < x.cols;
    float v[EIGHT] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (inside) {
        x.get(v, row, col);
    }
    save_row_codes(v, inside, row, x.rows, col, x.cols, pow2, code, scale);
}

/* Block (column tile, row tile). */
template <class Source>
__global__ void __launch_bounds__(BLOCK)
    both_kernel(Source x, const uint32_t *offset, uint32_t groups, bool pow2_row, bool pow2_col,
                struct fp8_codes row, struct fp8_codes col, size_t padded)
{
    __align__(16) __shared__ unsigned char turned[TILE * TILE];
    struct row_tile at;
    if (!tile_find(offset, groups, blockIdx.y, &at)) {
        return;
    }
    size_t first_col = (size_t)blockIdx.x * TILE;
    size_t cols = x.cols - first_col < TILE ? x.cols - first_col : TILE;
    const Tile tile = {at.first, at.rows, first_col, cols};
    const Place p = place_of(threadIdx.x);
    float v[EIGHT][EIGHT], scale[EIGHT];
    get_tile(v, x, tile, p);
    if (row.code != NULL) {
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            unsigned r = p.row + (unsigned)i;
            save_row_codes(v[i], r < tile.rows && p.col < tile.cols, at.first + r, x.rows,
                           first_col + p.col, x.cols, pow2_row, row.code, row.scale);
        }
    }
    column_scales(v, p, pow2_col, (unsigned)cols, scale,
                  col.scale + blockIdx.y * x.cols + first_col);
    turn(v, p, scale, turned);
    __syncthreads();
    save_turned(turned, (unsigned)cols, col.code + first_col * padded + (size_t)blockIdx.y * TILE,
                padded, TILE);
}

/* ---- weights: block (column tile, row tile) */

__global__ void __launch_bounds__(BLOCK)
    weight_kernel(FloatSource w, struct fp8_codes block, struct fp8_codes transposed)
{
    __align__(16) __shared__ unsigned char turned[TILE * TILE];
    __shared__ uint32_t shared[BLOCK / WARP];
    size_t first_row = (size_t)blockIdx.y * TILE, first_col = (size_t)blockIdx.x * TILE;
    const Tile tile = {first_row, w.rows - first_row < TILE ? w.rows - first_row : TILE, first_col,
                       w.cols - first_col < TILE ? w.cols - first_col : TILE};
    const Place p = place_of(threadIdx.x);
    float v[EIGHT][EIGHT], scale[EIGHT];
    get_tile(v, w, tile, p);
    uint32_t top = 0;
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        uint32_t bits = top_bits(v[i]);
        top = bits > top ? bits : top;
    }
    top = half_warp_top(top);
    uint32_t other = __shfl_xor_sync(ALL, top, 16);
    top = other > top ? other : top;
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = top;
    }
    __syncthreads();
    for (int i = 0; i < BLOCK / WARP; i++) {
        top = shared[i] > top ? shared[i] : top;
    }
    float s = scale_of(top, false);
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        scale[i] = s;
        if (block.code != NULL && p.row + (unsigned)i < tile.rows && p.col < tile.cols) {
            *(uint2 *)(block.code + (first_row + p.row + (unsigned)i) * w.cols + first_col +
                       p.col) = eight_codes(v[i], s);
        }
    }
    if (threadIdx.x == 0 && block.code != NULL) {
        block.scale[blockIdx.y * block_scale_pitch(w.cols) + blockIdx.x] = s;
    }
    if (threadIdx.x == 0 && transposed.code != NULL) {
        transposed.scale[blockIdx.x * block_scale_pitch(w.rows) + blockIdx.y] = s;
    }
    if (transposed.code == NULL) {
        return;
    }
    turn(v, p, scale, turned);
    __syncthreads();
    save_turned(turned, (unsigned)tile.cols, transposed.code + first_col * w.rows + first_row,
                w.rows, (unsigned)tile.rows);
}

/* ---- E5M6: the word pattern of 8 codes is 3 words */

__device__ __forceinline__ void pack_codes(const uint32_t *code, uint32_t *word)
{
    word[0] = code[0] | code[1] << 12 | code[2] << 24;
    word[1] = code[2] >> 8 | code[3] << 4 | code[4] << 16 | code[5] << 28;
    word[2] = code[5] >> 4 | code[6] << 8 | code[7] << 20;
}

__device__ __forceinline__ void unpack_codes(const uint32_t *word, uint32_t *code)
{
    code[0] = word[0] & 0xFFF;
    code[1] = word[0] >> 12 & 0xFFF;
    code[2] = (word[0] >> 24 | word[1] << 8) & 0xFFF;
    code[3] = word[1] >> 4 & 0xFFF;
    code[4] = word[1] >> 16 & 0xFFF;
    code[5] = (word[1] >> 28 | word[2] << 4) & 0xFFF;
    code[6] = word[2] >> 8 & 0xFFF;
    code[7] = word[2] >> 20;
}

__global__ void __launch_bounds__(BLOCK)
    pack_kernel(Bf16Source x, uint32_t *kept, float *scale, size_t row_lanes)
{
    size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;
    size_t row = i / row_lanes, col = i % row_lanes * EIGHT;
    bool inside = row < x.rows && col < x.cols;
    float v[EIGHT] = {0, 0, 0, 0, 0, 0, 0, 0};
    uint32_t code[EIGHT], word[3];
    if (inside) {
        x.get(v, row, col);
    }
    float s = e5m6_scale(half_warp_top(top_bits(v)));
    if (!inside) {
        return;
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        code[j] = e5m6_encode(v[j] / s);
    }
    pack_codes(code, word);
    uint32_t *to = kept + (row * x.cols + col) / EIGHT * 3;
    to[0] = word[0];
    to[1] = word[1];
    to[2] = word[2];
    if (col % TILE == 0) {
        scale[col / TILE * x.rows + row] = s;
    }
}

__global__ void __launch_bounds__(BLOCK)
    unpack_kernel(const uint32_t *kept, const float *scale, size_t rows, size_t cols, uint16_t *x)
{
    size_t i = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * EIGHT;
    if (i >= rows * cols) {
        return;
    }
    size_t row = i / cols, col = i % cols;
    const uint32_t *from = kept + i / EIGHT * 3;
    const uint32_t word[3] = {from[0], from[1], from[2]};
    uint32_t code[EIGHT];
    float v[EIGHT], s = scale[col / TILE * rows + row];
    unpack_codes(word, code);
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        v[j] = e5m6_decode((uint16_t)code[j]) * s;
    }
    save(x + i, v);
}

/* Threads of a row: whole tiles, so that a half warp is one tile. */
size_t row_lanes(size_t cols)
{
    return (cols + TILE - 1) / TILE * (TILE / EIGHT);
}

template <class Source>
int both(const Source &x, const uint32_t *offset, uint32_t groups, int pow2_row, int pow2_col,
         struct fp8_codes row, struct fp8_codes col, size_t padded, struct CUstream_st *stream)
{
    auto kernel = both_kernel<Source>;
    if (x.rows == 0) {
        return 0;
    }
    dim3 grid(blocks_for(x.cols, TILE), tiles_most((uint32_t)x.rows, groups));
    return LAUNCH(kernel, grid, BLOCK, 0, stream, x, offset, groups, pow2_row != 0, pow2_col != 0,
                  row, col, padded);
}
} // namespace

int quantise_rows(const uint16_t *x, size_t rows, size_t cols, int pow2, struct fp8_codes row,
                  struct CUstream_st *stream)
{
    const Bf16Source source = {x, rows, cols};
    unsigned blocks = blocks_for(rows * row_lanes(cols), BLOCK);
    return blocks == 0 ? 0
                       : LAUNCH(rows_kernel, blocks, BLOCK, 0, stream, source, pow2 != 0, row.code,
                                row.scale, row_lanes(cols));
}

int quantise_both(const uint16_t *x, size_t rows, size_t cols, const uint32_t *offset,
                  uint32_t groups, int pow2_row, int pow2_col, struct fp8_codes row,
                  struct fp8_codes col, size_t padded, struct CUstream_st *stream)
{
    return both(Bf16Source{x, rows, cols}, offset, groups, pow2_row, pow2_col, row, col, padded,
                stream);
}

int quantise_again(struct fp8_codes row, size_t rows, size_t cols, const uint32_t *offset,
                   uint32_t groups, int pow2_col, struct fp8_codes col, size_t padded,
                   struct CUstream_st *stream)
{
    return both(CodeSource{row.code, row.scale, rows, cols}, offset, groups, 0, pow2_col,
                fp8_codes{NULL, NULL}, col, padded, stream);
}

int quantise_weight(const float *w, size_t rows, size_t cols, struct fp8_codes block,
                    struct fp8_codes transposed, struct CUstream_st *stream)
{
    const FloatSource source = {w, rows, cols};
    dim3 grid(blocks_for(cols, TILE), blocks_for(rows, TILE));
    return LAUNCH(weight_kernel, grid, BLOCK, 0, stream, source, block, transposed);
}

int e5m6_pack(const uint16_t *x, size_t rows, size_t cols, uint32_t *kept, float *scale,
              struct CUstream_st *stream)
{
    const Bf16Source source = {x, rows, cols};
    unsigned blocks = blocks_for(rows * row_lanes(cols), BLOCK);
    return blocks == 0 ? 0
                       : LAUNCH(pack_kernel, blocks, BLOCK, 0, stream, source, kept, scale,
                                row_lanes(cols));
}

int e5m6_unpack(const uint32_t *kept, const float *scale, size_t rows, size_t cols, uint16_t *x,
                struct CUstream_st *stream)
{
    unsigned blocks = blocks_for(rows * cols, BLOCK * EIGHT);
    return blocks == 0
               ? 0
               : LAUNCH(unpack_kernel, blocks, BLOCK, 0, stream, kept, scale, rows, cols, x);
}
