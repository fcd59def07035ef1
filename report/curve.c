#include "report/curve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"

#define WINDOW_MIN 10.0 /* a decay of 0.9 */
#define WINDOWS    100  /* in a long run */
#define GAP_FACTOR 4

void curve_fini(struct curve *c)
{
    free(c->points);
    *c = (struct curve){0};
}

/* From one value towards another; their distance may be more than a double holds. */
static double towards(double from, double to, double share)
{
    double distance = to - from;
    return isfinite(distance) ? from + distance * share : from * (1 - share) + to * share;
}

/* ---- in all */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median_of(double *values, size_t count)
{
    if (count == 0) {
        return NAN;
    }
    qsort(values, count, sizeof *values, ascending);
    return towards(values[(count - 1) / 2], values[count / 2], 0.5);
}

static void take_extremes(struct curve *c, double value, uint64_t step)
{
    if (isnan(c->first)) {
        c->first = c->low = c->high = value;
        c->first_step = c->low_step = c->high_step = step;
    }
    if (value < c->low) {
        c->low = value;
        c->low_step = step;
    }
    if (value > c->high) {
        c->high = value;
        c->high_step = step;
    }
    c->last = value;
    c->last_step = step;
}

static void sum_up(struct curve *c, const struct metrics *m, enum metric which)
{
    double *values = mem_alloc_array(m->count, sizeof *values);
    size_t finite = 0;
    double mean = 0;
    for (size_t i = 0; i < m->count; i++) {
        double v = m->rows[i].value[which];
        if (isnan(v)) {
            continue;
        }
        c->measured++;
        if (!isfinite(v)) {
            c->not_finite_step = c->not_finite == 0 ? m->rows[i].step : c->not_finite_step;
            c->not_finite++;
            continue;
        }
        take_extremes(c, v, m->rows[i].step);
        values[finite++] = v;
        mean = towards(mean, v, 1 / (double)finite);
    }
    c->mean = finite > 0 ? mean : NAN;
    c->median = median_of(values, finite);
    free(values);
}

/* ---- in pieces */

/* Steps between two that were measured, as a rule. */
static double usual_distance(const struct metrics *m, enum metric which)
{
    double *steps = mem_alloc_array(m->count, sizeof *steps);
    size_t count = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (!isnan(m->rows[i].value[which])) {
            if (last > 0) {
                steps[count++] = (double)(m->rows[i].step - last);
            }
            last = m->rows[i].step;
        }
    }
    double usual = median_of(steps, count);
    free(steps);
    return usual > 1 ? usual : 1;
}

static void add_to_piece(struct curve_point *p, double step, double value, double line)
{
    if (p->steps == 0) {
        p->low = p->high = value;
    }
    p->steps++;
    p->step += (step - p->step) / (double)p->steps;
    p->low = fmin(p->low, value);
    p->high = fmax(p->high, value);
    p->line = line;
}

/* As the mean of all before it, until there are enough for the moving average. */
static double smoothed(double line, double value, uint64_t seen, double window)
{
    return seen == 1 ? value : towards(line, value, 1 / fmin((double)seen, window));
}

static void cut(struct curve *c, const struct metrics *m, enum metric which, bool sparse)
{
    bool whole = c->measured <= CURVE_POINTS;
    double first = (double)c->first_step;
    double width = ((double)c->last_step - first + 1) / CURVE_POINTS;
    double gap = usual_distance(m, which) * GAP_FACTOR;
    double line = 0;
    double last = 0;
    uint64_t seen = 0;
    bool broken = false;
    size_t piece = SIZE_MAX;
    c->points = mem_alloc_array(c->measured < CURVE_POINTS ? (size_t)c->measured : CURVE_POINTS,
                                sizeof *c->points);
    for (size_t i = 0; i < m->count; i++) {
        double step = (double)m->rows[i].step;
        double value = m->rows[i].value[which];
        if (!isfinite(value)) {
            broken = broken || !isnan(value);
            continue;
        }
        size_t here = whole ? (size_t)seen : (size_t)((step - first) / width);
        here = here < CURVE_POINTS ? here : CURVE_POINTS - 1;
        seen++;
        line = smoothed(line, value, seen, c->smooth ? c->window : 1);
        broken = broken || (!sparse && seen > 1 && step - last > gap);
        if (here != piece) {
            c->points[c->count++] = (struct curve_point){.after_gap = broken};
            piece = here;
        }
        struct curve_point *p = &c->points[c->count - 1];
        double mean = towards(p->line, value, 1 / (double)(p->steps + 1));
        add_to_piece(p, step, value, c->smooth ? line : mean);
        broken = false;
        last = step;
    }
    c->last_line = c->count > 0 ? c->points[c->count - 1].line : NAN;
}

void curve_make(struct curve *c, const struct metrics *m, enum metric which, bool smooth,
                bool sparse)
{
    *c = (struct curve){
        .smooth = smooth, .first = NAN, .last = NAN, .low = NAN, .high = NAN, .last_line = NAN};
    sum_up(c, m, which);
    double many = (double)c->measured / WINDOWS;
    c->window = many > WINDOW_MIN ? round(many) : WINDOW_MIN;
    if (c->measured > c->not_finite) {
        cut(c, m, which, sparse);
    }
}

/* ---- in characters */

char *curve_spark(const struct curve *c, size_t columns)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    struct buf out = {0};
    size_t count = c->count < columns ? c->count : columns;
    double low = INFINITY;
    double high = -INFINITY;
    for (size_t i = 0; i < c->count; i++) {
        low = fmin(low, c->points[i].line);
        high = fmax(high, c->points[i].line);
    }
    for (size_t k = 0; k < count; k++) {
        double sum = 0;
        size_t from = k * c->count / count;
        size_t to = (k + 1) * c->count / count;
        for (size_t i = from; i < to; i++) {
            sum += c->points[i].line / (double)(to - from);
        }
        double share = high > low ? (sum - low) / (high - low) : 0;
        size_t bar = share > 0 ? (size_t)(share * 7.999) : 0;
        buf_append_str(&out, bars[bar < 8 ? bar : 7]);
    }
    char *text = mem_strdup(buf_cstr(&out));
    buf_fini(&out);
    return text;
}
