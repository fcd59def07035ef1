/* One measure over the steps, made small enough to draw. Of a long run, each piece of the width
 * shows the lowest and the highest value in it, so that a spike of one step stays where it is, as
 * high as it was. */
#ifndef REPORT_CURVE_H
#define REPORT_CURVE_H

#include "report/metrics.h"

#define CURVE_POINTS 480 /* at most, and as many as a plot is worth */

struct curve_point {
    double step;
    double low, high;
    double line;    /* the moving average there; of a curve without one, the mean of the piece */
    uint64_t steps; /* it stands for */
    bool after_gap; /* steps before it were not measured */
};
struct curve {
    struct curve_point *points; /* owned */
    size_t count;
    bool smooth;
    double window;     /* steps of the moving average: its decay is 1 - 1/window */
    uint64_t measured; /* values in all, of which */
    uint64_t not_finite;
    uint64_t not_finite_step; /* the first of those */
    /* of the finite ones; NAN when there is none */
    double first, last, low, high, mean, median;
    uint64_t first_step, last_step, low_step, high_step;
    double last_line; /* the moving average, at the end */
};

/* sparse: not measured at every step, so that steps without it are no gap. */
void curve_make(struct curve *c, const struct metrics *m, enum metric which, bool smooth,
                bool sparse);
void curve_fini(struct curve *c); /* a zeroed one is fine */

/* The curve in so many characters, ▁ to █, for where there are no pictures. "" without a value.
 * Caller frees. */
char *curve_spark(const struct curve *c, size_t columns);

#endif
