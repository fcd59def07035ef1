/* Numbers that are on a coarse grid as codes, and back to the bit (op.h, pack). Part of
 * kernels_base.c. */
#ifndef TRAINER_CPU_KERNELS_PACK_H
#define TRAINER_CPU_KERNELS_PACK_H

#include <assert.h>

#include "trainer/cpu/kernels_quantise.h"

static inline void pack_bf16(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        uint16_t *code = (uint16_t *)(void *)row_of(a->y, r);
        for (size_t c = 0; c < a->x.cols; c++) {
            code[c] = (uint16_t)(float_bits(x[c]) >> 16);
        }
    }
}

static inline void unpack_bf16(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const uint16_t *code = (const uint16_t *)(const void *)row_of(a->x, r);
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->y.cols; c++) {
            y[c] = float_of_bits((uint32_t)code[c] << 16);
        }
    }
}

/* ---- FP8: of each tile the scale, in front of the row, then the codes */

static inline bool codes_of(const float *restrict x, size_t n, float scale, uint8_t *restrict code)
{
    uint32_t lost = 0;
    for (size_t i = 0; i < n; i++) {
        code[i] = fp8_encode(x[i] / scale);
        lost |= float_bits(fp8_decode(code[i]) * scale) ^ float_bits(x[i]);
    }
    return lost == 0;
}

/* The scale that the tile was rounded with, or one that gives the same numbers. The largest number
 * is 448 * scale rounded, so amax / 448 is off by at most one and a half units in the last place.
 */
static inline float pack_tile(const float *x, size_t n, uint8_t *code)
{
    static const int32_t off[] = {0, 1, -1, 2, -2};
    uint32_t top = amax_bits(x, n), scale = float_bits(fp8_scale(top));
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        float tried = float_of_bits(scale + (uint32_t)off[i]);
        if (codes_of(x, n, tried, code)) {
            return tried;
        }
    }
    assert(top >= 0x7F800000u); /* a tile of NaNs, which remain that; else nobody rounded it */
    return float_of_bits(scale);
}

static inline size_t tiles_of(size_t cols)
{
    return (cols + FP8_TILE - 1) / FP8_TILE;
}

static inline void pack_fp8(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        float *scale = row_of(a->y, r);
        uint8_t *code = (uint8_t *)(scale + tiles_of(a->x.cols));
        for (size_t c = 0; c < a->x.cols; c += FP8_TILE) {
            *scale++ = pack_tile(x + c, smaller(FP8_TILE, a->x.cols - c), code + c);
        }
    }
}

static inline void unpack_fp8(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *scales = row_of(a->x, r);
        const uint8_t *code = (const uint8_t *)(scales + tiles_of(a->y.cols));
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->y.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->y.cols - c);
            float scale = *scales++;
            for (size_t i = c; i < c + n; i++) {
                y[i] = fp8_decode(code[i]) * scale;
            }
        }
    }
}

/* ---- with scales that are powers of two: the exponent is enough, and any scale will do that
 * brings the tile into range, since the smaller one only makes codes of larger numbers */

TEMPLATE uint8_t exponent_of(struct grid grid, const float *x, size_t n)
{
    return (uint8_t)(float_bits(grid.scale(amax_bits(x, n))) >> 23);
}

static inline float power_of(uint8_t exponent)
{
    return float_of_bits((uint32_t)exponent << 23); /* of NaNs: infinite, and the codes are NaN */
}

/* Codes begin at the next multiple of 4. */
static inline size_t exponent_bytes(size_t cols)
{
    return (tiles_of(cols) + 3) / 4 * 4;
}

static inline void pack_fp8_pow2(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        uint8_t *exponent = (uint8_t *)row_of(a->y, r);
        uint8_t *code = exponent + exponent_bytes(a->x.cols);
        for (size_t c = 0; c < a->x.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->x.cols - c);
            *exponent = exponent_of(GRID_FP8_POW2, x + c, n);
            float scale = power_of(*exponent++);
            for (size_t i = c; i < c + n; i++) {
                code[i] = fp8_encode(x[i] / scale);
            }
        }
    }
}

static inline void unpack_fp8_pow2(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const uint8_t *exponent = (const uint8_t *)row_of(a->x, r);
        const uint8_t *code = exponent + exponent_bytes(a->y.cols);
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->y.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->y.cols - c);
            float scale = power_of(*exponent++);
            for (size_t i = c; i < c + n; i++) {
                y[i] = fp8_decode(code[i]) * scale;
            }
        }
    }
}

/* Twelve bits in two bytes. */
static inline void pack_e5m6(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        uint8_t *exponent = (uint8_t *)row_of(a->y, r);
        uint16_t *code = (uint16_t *)(void *)(exponent + exponent_bytes(a->x.cols));
        for (size_t c = 0; c < a->x.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->x.cols - c);
            *exponent = exponent_of(GRID_E5M6, x + c, n);
            float scale = power_of(*exponent++);
            for (size_t i = c; i < c + n; i++) {
                code[i] = e5m6_encode(x[i] / scale);
            }
        }
    }
}

static inline void unpack_e5m6(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const uint8_t *exponent = (const uint8_t *)row_of(a->x, r);
        const uint16_t *code =
            (const uint16_t *)(const void *)(exponent + exponent_bytes(a->y.cols));
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->y.cols; c += FP8_TILE) {
            size_t n = smaller(FP8_TILE, a->y.cols - c);
            float scale = power_of(*exponent++);
            for (size_t i = c; i < c + n; i++) {
                y[i] = e5m6_decode(code[i]) * scale;
            }
        }
    }
}

#endif
