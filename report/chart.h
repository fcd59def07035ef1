/* A plot of curves over the steps, as SVG: no script, no font or file from elsewhere, light and
 * dark. */
#ifndef REPORT_CHART_H
#define REPORT_CHART_H

#include "lib/buf.h"
#include "report/curve.h"

#define CHART_SERIES 3

enum chart_mark_kind { CHART_RESTART, CHART_DECISION };
struct chart_mark {
    enum chart_mark_kind kind;
    double step;
    const char *text; /* borrowed; shown under the pointer */
};
struct chart_series {
    const struct curve *curve; /* borrowed */
    const char *name;          /* borrowed */
    bool points;               /* few values: a mark at each */
};
struct chart {
    const char *title; /* borrowed, as all below */
    const char *unit;  /* of the values, "" for none */
    struct chart_series series[CHART_SERIES];
    size_t count;
    const struct chart_mark *marks;
    size_t mark_count;
    double limit; /* a line across; NAN: none */
    const char *limit_name;
    bool from_zero; /* the axis begins at 0, unless it is logarithmic */
};

/* Of the colours and lines below; for the page that has them inside, or a file of its own. */
extern const char chart_style[];

/* Nothing, and false, when no curve has a value. alone: a file of its own. */
bool chart_svg(struct buf *out, const struct chart *c, bool alone);

/* One stretch of the time of a run. */
struct chart_span {
    double from, to;
    const char *text; /* borrowed; shown under the pointer */
    int look;         /* 0, 1 in turn, 2 for one that lost something */
};
/* Attempts side by side along the time, and points in time (checkpoints) under them. length_ms: of
 * the whole, from 0. */
void chart_spans_svg(struct buf *out, const char *title, double length_ms,
                     const struct chart_span *spans, size_t count, const double *points,
                     size_t point_count, bool alone);

struct chart_part {
    const char *name; /* borrowed */
    double size;
};
#define CHART_PARTS 8
/* One bar made of parts, at most CHART_PARTS of them. */
void chart_parts_svg(struct buf *out, const char *title, const struct chart_part *parts,
                     size_t count, bool alone);

/* For both of them: begins and ends a picture. */
void chart_begin(struct buf *out, const char *title, double width, double height, bool alone);
void chart_end(struct buf *out);

#endif
