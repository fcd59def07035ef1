/* Building blocks of the vectorised loops: 16 lanes whatever the machine has, so that sums have one
 * order and every instruction set gives the same bits. Vectors are never passed by value: that
 * would depend on the ABI of the instruction set. */
#ifndef TRAINER_CPU_VEC_H
#define TRAINER_CPU_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "trainer/fp8.h"

#define LANES 16

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t vec_mask __attribute__((vector_size(LANES * sizeof(float))));

/* Lanes from p[0..left), at most 16; the rest are `fill`. */
static inline void vec_load(vec *v, const float *p, size_t left, float fill)
{
    if (left >= LANES) {
        memcpy(v, p, sizeof *v);
        return;
    }
    float lane[LANES];
    for (size_t i = 0; i < LANES; i++) {
        lane[i] = i < left ? p[i] : fill;
    }
    memcpy(v, lane, sizeof *v);
}

static inline float vec_sum(const vec *v)
{
    float lane[LANES];
    memcpy(lane, v, sizeof lane);
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            lane[i] += lane[i + width];
        }
    }
    return lane[0];
}

static inline float sum_of(const float *x, size_t n)
{
    vec sum = {0}, a;
    for (size_t i = 0; i < n; i += LANES) {
        vec_load(&a, x + i, n - i, 0);
        sum += a;
    }
    return vec_sum(&sum);
}

static inline float dot(const float *x, const float *y, size_t n)
{
    vec sum = {0}, a, b;
    for (size_t i = 0; i < n; i += LANES) {
        vec_load(&a, x + i, n - i, 0);
        vec_load(&b, y + i, n - i, 0);
        sum += a * b;
    }
    return vec_sum(&sum);
}

/* The largest, NaNs left out; n at least 1. */
static inline float max_of(const float *x, size_t n)
{
    const float lowest = -3.402823466e38f;
    vec top, a;
    vec_load(&top, x, n, lowest);
    for (size_t i = LANES; i < n; i += LANES) {
        vec_load(&a, x + i, n - i, lowest);
        vec_mask above = a > top;
        top = (vec)((above & (vec_mask)a) | (~above & (vec_mask)top));
    }
    float lane[LANES];
    memcpy(lane, &top, sizeof lane);
    float best = lowest;
    for (size_t i = 0; i < LANES; i++) {
        best = lane[i] > best ? lane[i] : best;
    }
    return best;
}

/* The bits of the largest |x|: they order like the magnitudes, with NaN on top. */
static inline uint32_t amax_bits(const float *x, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = float_bits(x[i]) & 0x7FFFFFFFu;
        top = bits > top ? bits : top;
    }
    return top;
}

/* exp to about 1 unit in the last place (Cephes' polynomial after x = n ln 2 + r); flat outside
 * [-87, 88]. NaN stays NaN. */
static inline float exp_fast(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    float n = x * 1.44269504f + shift;
    uint32_t power = (float_bits(n) - float_bits(shift) + 127) << 23;
    n -= shift;
    float r = x - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * float_of_bits(power);
}

static inline float sigmoid(float x)
{
    return 1.0f / (1.0f + exp_fast(-x));
}

#endif
