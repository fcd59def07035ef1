/* Random matrices and numerical derivatives for tests of single operations. */
#ifndef TESTS_UNIT_TRAINER_OP_FIXTURE_H
#define TESTS_UNIT_TRAINER_OP_FIXTURE_H

#include <math.h>
#include <stdlib.h>

#include "tests/unit/random.h"
#include "trainer/op.h"

static inline double uniform(double low, double high)
{
    return low + (high - low) * (double)(random_next() >> 11) * 0x1p-53;
}

static inline float *random_floats(size_t n, double low, double high)
{
    float *x = malloc((n > 0 ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)uniform(low, high);
    }
    return x;
}

/* Rows may have a gap between them. */
static inline struct mat random_mat(size_t rows, size_t cols)
{
    size_t ld = cols + random_below(4);
    return (struct mat){random_floats(rows * ld, -1, 1), rows, cols, ld};
}

static inline double *doubles(const float *x, size_t n)
{
    double *y = malloc((n > 0 ? n : 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) {
        y[i] = (double)x[i];
    }
    return y;
}

/* The dense copy of a matrix in double. */
static inline double *doubles_of(struct mat m)
{
    double *y = malloc((m.rows * m.cols + 1) * sizeof *y);
    for (size_t i = 0; i < m.rows * m.cols; i++) {
        y[i] = (double)m.data[i / m.cols * m.ld + i % m.cols];
    }
    return y;
}

/* |m - wanted| / (|wanted| + floor), wanted dense. */
static inline double mat_error(struct mat m, const double *wanted, double floor)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < m.rows * m.cols; i++) {
        double d = (double)m.data[i / m.cols * m.ld + i % m.cols] - wanted[i];
        error += d * d;
        norm += wanted[i] * wanted[i];
    }
    return sqrt(error) / (sqrt(norm) + floor);
}

static inline double array_error(const float *x, const double *wanted, size_t n, double floor)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow((double)x[i] - wanted[i], 2);
        norm += wanted[i] * wanted[i];
    }
    return sqrt(error) / (sqrt(norm) + floor);
}

/* Central differences of f with respect to x[n]. */
static inline double *differences(double (*f)(void *), void *ctx, double *x, size_t n)
{
    const double step = 1e-5;
    double *d = malloc((n > 0 ? n : 1) * sizeof *d);
    for (size_t i = 0; i < n; i++) {
        double kept = x[i];
        x[i] = kept + step;
        double above = f(ctx);
        x[i] = kept - step;
        d[i] = (above - f(ctx)) / (2 * step);
        x[i] = kept;
    }
    return d;
}

#endif
