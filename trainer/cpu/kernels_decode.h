/* Products of few rows, for decoding: each weight is read once, and memory is what they wait for.
 * Part of kernels_base.c. */
#ifndef TRAINER_CPU_KERNELS_DECODE_H
#define TRAINER_CPU_KERNELS_DECODE_H

#include "trainer/cpu/vec.h"

#define SUMS  4    /* under way at a time: the additions of one fill the waits of the others */
#define AHEAD 2048 /* floats */

typedef float half_vec __attribute__((vector_size(LANES / 2 * sizeof(float))));
typedef float quarter_vec __attribute__((vector_size(LANES / 4 * sizeof(float))));

/* vec_sum's additions in vec_sum's order, without its detour over memory. */
static inline float sum_lanes(const vec *v)
{
    half_vec low, high;
    quarter_vec first, second;
    memcpy(&low, v, sizeof low);
    memcpy(&high, (const char *)v + sizeof low, sizeof high);
    low += high;
    memcpy(&first, &low, sizeof first);
    memcpy(&second, (const char *)&low + sizeof first, sizeof second);
    first += second;
    return (first[0] + first[2]) + (first[1] + first[3]);
}

/* What is left of the rows after whole vectors. On its own, so that the loops before it keep their
 * sums in registers. */
static __attribute__((noinline)) float with_rest(const vec *sum, const float *x, const float *w,
                                                 size_t left)
{
    vec a, b;
    vec_load(&a, x, left, 0);
    vec_load(&b, w, left, 0);
    a = *sum + a * b;
    return sum_lanes(&a);
}

#define FINISH(sum, x, w, n)                                                                       \
    ((n) % LANES == 0                                                                              \
         ? sum_lanes(&(sum))                                                                       \
         : with_rest(&(sum), (x) + (n) / LANES * LANES, (w) + (n) / LANES * LANES, (n) % LANES))

/* A vector whatever its address; a function would pass it by value. */
typedef float loose_vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
#define LOAD(p) (*(const loose_vec *)(p))

/* A row with four of w. */
static inline void one_row(const float *x, const float *w, size_t n, float *y)
{
    vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        vec a = LOAD(x + i);
        s0 += a * LOAD(w + i);
        s1 += a * LOAD(w + n + i);
        s2 += a * LOAD(w + 2 * n + i);
        s3 += a * LOAD(w + 3 * n + i);
    }
    y[0] = FINISH(s0, x, w, n);
    y[1] = FINISH(s1, x, w + n, n);
    y[2] = FINISH(s2, x, w + 2 * n, n);
    y[3] = FINISH(s3, x, w + 3 * n, n);
}

/* Two rows with two of w: as fast as one row when memory is what it waits for, which two streams
 * alone do not keep busy. */
static inline void two_rows(const float *x0, const float *x1, const float *w, size_t n, float *y0,
                            float *y1)
{
    vec s0 = {0}, s1 = {0}, t0 = {0}, t1 = {0};
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        __builtin_prefetch(w + i + AHEAD);
        __builtin_prefetch(w + n + i + AHEAD);
        vec a = LOAD(x0 + i), b = LOAD(x1 + i), c = LOAD(w + i), d = LOAD(w + n + i);
        s0 += a * c;
        s1 += a * d;
        t0 += b * c;
        t1 += b * d;
    }
    y0[0] = FINISH(s0, x0, w, n);
    y0[1] = FINISH(s1, x0, w + n, n);
    y1[0] = FINISH(t0, x1, w, n);
    y1[1] = FINISH(t1, x1, w + n, n);
}

static void products(const float *x, size_t ld_x, size_t rows, const float *w, size_t n,
                     size_t outputs, float *y, size_t ld_y)
{
    for (size_t r = 0; r < rows; r += 2) {
        const float *from = x + r * ld_x;
        float *to = y + r * ld_y;
        size_t k = 0;
        if (r + 2 <= rows) {
            for (; k + 2 <= outputs; k += 2) {
                two_rows(from, from + ld_x, w + k * n, n, to + k, to + ld_y + k);
            }
        } else {
            for (; k + SUMS <= outputs; k += SUMS) {
                one_row(from, w + k * n, n, to + k);
            }
        }
        for (; k < outputs; k++) {
            to[k] = dot(from, w + k * n, n);
            if (r + 2 <= rows) {
                to[ld_y + k] = dot(from + ld_x, w + k * n, n);
            }
        }
    }
}

/* One at a time in the order of the rows, whatever the width of a block. */
static inline __attribute__((always_inline)) void weighted_block(const float *a, size_t count,
                                                                 const float *rows, size_t ld,
                                                                 size_t width, float *y)
{
    vec sum[SUMS] = {0}, b;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < width; k++) {
            memcpy(&b, rows + i * ld + k * LANES, sizeof b);
            sum[k] += a[i] * b;
        }
    }
    memcpy(y, sum, width * sizeof *sum);
}

static void weighted_sum(const float *a, size_t count, const float *rows, size_t ld, size_t n,
                         float *y)
{
    size_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES) {
        weighted_block(a, count, rows + i, ld, SUMS, y + i);
    }
    for (; i + LANES <= n; i += LANES) {
        weighted_block(a, count, rows + i, ld, 1, y + i);
    }
    for (; i < n; i++) {
        float sum = 0;
        for (size_t k = 0; k < count; k++) {
            sum += a[k] * rows[k * ld + i];
        }
        y[i] = sum;
    }
}

#endif
