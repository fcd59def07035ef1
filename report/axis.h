/* Where an axis has its ticks, and what stands there. */
#ifndef REPORT_AXIS_H
#define REPORT_AXIS_H

#include <stdbool.h>
#include <stddef.h>

#define AXIS_TEXT_BYTES 32

/* The distance 1, 2 or 5 times a power of ten at which about `count` ticks fit into a range. */
double axis_step(double range, size_t count);
/* With enough decimals to tell neighbouring ticks apart. text has AXIS_TEXT_BYTES. */
void axis_text(char *text, double value, double step);
/* The same for any size: 250K, 1.5M, 2.2e-04. */
void axis_text_short(char *text, double value, double step);

/* A range of values on an axis. */
struct axis {
    double low, high;
    bool log; /* decades; low is above 0 then */
};
/* 0 at low, 1 at high. */
double axis_share(const struct axis *a, double value);
/* Fills ticks, at most `most` of them; *step is their distance (of the last one to the one before,
 * where it is logarithmic). Returns how many there are. */
size_t axis_ticks(const struct axis *a, double *ticks, size_t most, double *step);

#endif
