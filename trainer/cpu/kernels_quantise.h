/* Rounding to the grids of FP8, E5M6 and BF16. Part of kernels_base.c. */
#ifndef TRAINER_CPU_KERNELS_QUANTISE_H
#define TRAINER_CPU_KERNELS_QUANTISE_H

#include "trainer/cpu/kernels.h"
#include "trainer/cpu/vec.h"
#include "trainer/e5m6.h"

/* A format: the scale of a tile from the bits of its largest magnitude, and the nearest number. The
 * functions that take one are inlined into those that name it, and vectorised there. */
struct grid {
    float (*scale)(uint32_t amax_bits);
    float (*round)(float x);
};
#define GRID_FP8      ((struct grid){fp8_scale, fp8_round})
#define GRID_FP8_POW2 ((struct grid){fp8_scale_pow2, fp8_round})
#define GRID_E5M6     ((struct grid){e5m6_scale, e5m6_round})
#define TEMPLATE      static inline __attribute__((always_inline))

static inline size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline float *row_of(struct mat m, size_t row)
{
    return m.data + row * m.ld;
}

TEMPLATE void round_run(struct grid grid, const float *x, float *y, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = grid.round(x[i] / scale) * scale;
    }
}

TEMPLATE void round_rows(struct grid grid, const struct quantise_args *a, size_t first, size_t last)
{
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->x.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->x.cols - c);
            round_run(grid, x + c, y + c, n, grid.scale(amax_bits(x + c, n)));
        }
    }
}

static inline void fp8_row(const void *args, size_t first, size_t last)
{
    round_rows(GRID_FP8, args, first, last);
}

static inline void fp8_row_pow2(const void *args, size_t first, size_t last)
{
    round_rows(GRID_FP8_POW2, args, first, last);
}

static inline void e5m6_row(const void *args, size_t first, size_t last)
{
    round_rows(GRID_E5M6, args, first, last);
}

/* A panel of up to 128 rows and 64 columns: one scale a column. */
#define PANEL 64

TEMPLATE void round_panel(struct grid grid, struct mat x, struct mat y)
{
    uint32_t top[PANEL] = {0};
    for (size_t r = 0; r < x.rows; r++) {
        const float *in = row_of(x, r);
        for (size_t c = 0; c < x.cols; c++) {
            uint32_t bits = float_bits(in[c]) & 0x7FFFFFFFu;
            top[c] = bits > top[c] ? bits : top[c];
        }
    }
    float scale[PANEL];
    for (size_t c = 0; c < x.cols; c++) {
        scale[c] = grid.scale(top[c]);
    }
    for (size_t r = 0; r < x.rows; r++) {
        const float *in = row_of(x, r);
        float *out = row_of(y, r);
        for (size_t c = 0; c < x.cols; c++) {
            out[c] = grid.round(in[c] / scale[c]) * scale[c];
        }
    }
}

TEMPLATE void round_cols(struct grid grid, const struct quantise_args *a, size_t first, size_t last)
{
    for (size_t r = 0; r < a->x.rows; r += FP8_TILE) {
        size_t rows = smaller(FP8_TILE, a->x.rows - r);
        for (size_t c = first; c < last; c += PANEL) {
            size_t cols = smaller(PANEL, last - c);
            round_panel(grid, mat_cols(mat_rows(a->x, r, rows), c, cols),
                        mat_cols(mat_rows(a->y, r, rows), c, cols));
        }
    }
}

static inline void fp8_col(const void *args, size_t first, size_t last)
{
    round_cols(GRID_FP8, args, first, last);
}

static inline void fp8_col_pow2(const void *args, size_t first, size_t last)
{
    round_cols(GRID_FP8_POW2, args, first, last);
}

static inline void e5m6_col(const void *args, size_t first, size_t last)
{
    round_cols(GRID_E5M6, args, first, last);
}

static inline void fp8_block(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t block = first; block < last; block++) {
        size_t r0 = block * FP8_TILE, rows = smaller(FP8_TILE, a->x.rows - r0);
        for (size_t c = 0; c < a->x.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->x.cols - c);
            uint32_t top = 0;
            for (size_t r = r0; r < r0 + rows; r++) {
                uint32_t bits = amax_bits(row_of(a->x, r) + c, n);
                top = bits > top ? bits : top;
            }
            for (size_t r = r0; r < r0 + rows; r++) {
                round_run(GRID_FP8, row_of(a->x, r) + c, row_of(a->y, r) + c, n, fp8_scale(top));
            }
        }
    }
}

static inline void bf16(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->x.cols; c++) {
            y[c] = bf16_round(x[c]);
        }
    }
}

static inline void encode(const float *x, uint8_t *code, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        code[i] = fp8_encode(x[i]);
    }
}

static inline void decode(const uint8_t *code, float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = fp8_decode(code[i]);
    }
}

static inline void encode_e5m6(const float *x, uint16_t *code, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        code[i] = e5m6_encode(x[i]);
    }
}

static inline void decode_e5m6(const uint16_t *code, float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = e5m6_decode(code[i]);
    }
}

#endif
