#include "report/axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double axis_step(double range, size_t count)
{
    double rough = range / (double)(count > 0 ? count : 1);
    double power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

void axis_text(char *text, double value, double step)
{
    int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    snprintf(text, AXIS_TEXT_BYTES, "%.*f", decimals > 9 ? 9 : decimals,
             fabs(value) < step / 1000 ? 0.0 : value);
}

void axis_text_short(char *text, double value, double step)
{
    static const char *const units[] = {"", "K", "M", "G", "T", "P"};
    double size = fmax(fabs(value), step);
    size_t unit = 0;
    if (fabs(value) < step / 1000) {
        snprintf(text, AXIS_TEXT_BYTES, "0");
        return;
    }
    if (size >= 1e18 || size < 1e-3) {
        int digits = (int)(floor(log10(fabs(value))) - floor(log10(step)));
        snprintf(text, AXIS_TEXT_BYTES, "%.*e", digits < 1 ? 1 : digits > 6 ? 6 : digits, value);
        return;
    }
    while (size >= 10000 || (unit > 0 && size >= 1000)) {
        size /= 1000;
        unit++;
    }
    double scale = pow(1000, (double)unit);
    axis_text(text, value / scale, step / scale);
    size_t used = strlen(text);
    snprintf(text + used, AXIS_TEXT_BYTES - used, "%s", units[unit]);
}

double axis_share(const struct axis *a, double value)
{
    if (a->log) {
        return (log10(value) - log10(a->low)) / (log10(a->high) - log10(a->low));
    }
    /* Halves: the range of two doubles may be more than a double holds. */
    return (value / 2 - a->low / 2) / (a->high / 2 - a->low / 2);
}

/* 1, 2 and 5 of each decade when there are few of them, else every so many decades. */
static size_t log_ticks(const struct axis *a, double *ticks, size_t most, double *step)
{
    static const double digits[] = {1, 2, 5};
    double first = floor(log10(a->low));
    double decades = log10(a->high) - log10(a->low);
    size_t parts = decades <= 2 ? 3 : 1;
    double stride = fmax(1, ceil(decades / 6));
    size_t count = 0;
    for (double d = first; d <= first + decades + 1; d += stride) {
        for (size_t i = 0; i < parts && count < most; i++) {
            double value = digits[i] * pow(10, d);
            if (value >= a->low && value <= a->high) {
                ticks[count++] = value;
            }
        }
    }
    *step = ticks[0];
    return count;
}

size_t axis_ticks(const struct axis *a, double *ticks, size_t most, double *step)
{
    if (a->log) {
        return log_ticks(a, ticks, most, step);
    }
    double range = a->high - a->low;
    if (!isfinite(range)) {
        ticks[0] = a->low;
        ticks[1] = a->high;
        *step = fabs(a->high);
        return 2;
    }
    size_t count = 0;
    *step = axis_step(range, most > 1 ? most - 1 : 1);
    for (double v = ceil(a->low / *step) * *step; v <= a->high + *step / 1000 && count < most;
         v += *step) {
        ticks[count++] = v;
    }
    return count;
}
