#include "report/chart.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/format.h"
#include "report/axis.h"
#include "report/escape.h"

#define WIDTH      760.0
#define HEIGHT     270.0
#define LEFT       58.0
#define RIGHT      14.0
#define TOP        30.0
#define BOTTOM     38.0
#define TICKS      6
#define TICKS_MAX  24
#define LOG_FROM   30.0 /* highest by lowest value, from which on decades show more */
#define POINTS_MAX 120  /* marks in a series of points */
#define LETTER     6.1  /* its width, about */

const char chart_style[] =
    ".ch text{font:11px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#4b5563}"
    ".ch .g{stroke:#e5e7eb;stroke-width:1}.ch .ax{stroke:#9ca3af;stroke-width:1}"
    ".ch .l{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    ".ch .r{fill:none;stroke-width:.9;stroke-opacity:.38;stroke-linejoin:round;"
    "stroke-linecap:round}.ch .b{stroke:none;fill-opacity:.18}"
    ".ch .l0{stroke:#2563c9}.ch .f0{fill:#2563c9}.ch .l1{stroke:#c2570c}.ch .f1{fill:#c2570c}"
    ".ch .l2{stroke:#0f7f6b}.ch .f2{fill:#0f7f6b}.ch .f3{fill:#8b5fc7}.ch .f4{fill:#b08900}"
    ".ch .f5{fill:#64748b}.ch .f6{fill:#be4b7b}.ch .f7{fill:#94a3b8}"
    ".ch .lim{stroke:#6b7280;stroke-dasharray:6 4;stroke-width:1}"
    ".ch .m0{stroke:#6b7280;stroke-width:1;stroke-dasharray:2 3}"
    ".ch .m1{stroke:#b91c1c;stroke-width:1.2}.ch .bad{fill:#b91c1c}"
    "@media(prefers-color-scheme:dark){.ch text{fill:#aab4c2}.ch .g{stroke:#2b323c}"
    ".ch .ax{stroke:#5b6573}.ch .l0{stroke:#6ea8fe}.ch .f0{fill:#6ea8fe}"
    ".ch .l1{stroke:#f0a35e}.ch .f1{fill:#f0a35e}.ch .l2{stroke:#56c7b0}.ch .f2{fill:#56c7b0}"
    ".ch .f3{fill:#b79af0}.ch .f4{fill:#d8b84a}.ch .f5{fill:#94a3b8}.ch .f6{fill:#e58fb3}"
    ".ch .f7{fill:#64748b}.ch .m0,.ch .lim{stroke:#94a3b8}.ch .m1{stroke:#f87171}"
    ".ch .bad{fill:#f87171}}";

void chart_begin(struct buf *out, const char *title, double width, double height, bool alone)
{
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"ch\" role=\"img\" "
               "viewBox=\"0 0 %.0f %.0f\"",
               width, height);
    if (alone) {
        buf_printf(out, " width=\"%.0f\" height=\"%.0f\"", width, height);
    }
    buf_append_str(out, "><title>");
    escape_html(out, title);
    buf_append_str(out, "</title>\n");
    if (alone) {
        buf_printf(out, "<style>%s</style>\n", chart_style);
    }
}

void chart_end(struct buf *out)
{
    buf_append_str(out, "</svg>\n");
}

/* ---- ranges */

struct frame {
    struct axis x, y;
};

static double at_x(const struct frame *f, double step)
{
    return LEFT + axis_share(&f->x, step) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct frame *f, double value)
{
    return HEIGHT - BOTTOM - axis_share(&f->y, value) * (HEIGHT - TOP - BOTTOM);
}

static bool find_range(struct frame *f, const struct chart *c)
{
    *f = (struct frame){{INFINITY, -INFINITY, false}, {INFINITY, -INFINITY, false}};
    for (size_t s = 0; s < c->count; s++) {
        const struct curve *v = c->series[s].curve;
        if (v->count > 0) {
            f->x.low = fmin(f->x.low, (double)v->first_step);
            f->x.high = fmax(f->x.high, (double)v->last_step);
            f->y.low = fmin(f->y.low, v->low);
            f->y.high = fmax(f->y.high, v->high);
        }
    }
    return isfinite(f->x.low);
}

/* The limit is shown when it is anywhere near the curve. */
static bool shows_limit(const struct chart *c, const struct frame *f)
{
    return isfinite(c->limit) && c->limit > 0 && c->limit <= f->y.high * 3 &&
           c->limit >= f->y.low / 3;
}

static void widen(struct frame *f, const struct chart *c)
{
    struct axis *y = &f->y;
    if (shows_limit(c, f)) {
        y->low = fmin(y->low, c->limit);
        y->high = fmax(y->high, c->limit);
    }
    y->log = y->low > 0 && y->high / y->low >= LOG_FROM;
    if (y->log) {
        double margin = pow(10, 0.04 * (log10(y->high) - log10(y->low)));
        y->low = fmax(y->low / margin, DBL_TRUE_MIN);
        y->high = fmin(y->high * margin, DBL_MAX);
    } else {
        double margin = (y->high / 2 - y->low / 2) * 0.08;
        if (margin <= fabs(y->high) * 1e-9) {
            margin = y->high != 0 ? fmax(fabs(y->high) * 0.05, 1e-300) : 0.5;
        }
        bool zero = c->from_zero && y->low >= 0;
        y->low = zero ? 0 : fmax(y->low - margin, -DBL_MAX);
        y->high = fmin(y->high + margin, DBL_MAX);
    }
    if (f->x.high - f->x.low <= 0) {
        double margin = fmax(1, f->x.high * 1e-9);
        f->x.low -= margin;
        f->x.high += margin;
    }
}

/* ---- what is around it */

static void put_text(struct buf *out, double x, double y, const char *anchor, const char *text)
{
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    escape_html(out, text);
    buf_append_str(out, "</text>\n");
}

static void put_axes(struct buf *out, const struct chart *c, const struct frame *f)
{
    double ticks[TICKS_MAX];
    double step = 1;
    char text[AXIS_TEXT_BYTES];
    size_t count = axis_ticks(&f->y, ticks, f->y.log ? TICKS_MAX : TICKS, &step);
    for (size_t i = 0; i < count; i++) {
        double y = at_y(f, ticks[i]);
        buf_printf(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>", LEFT, y, WIDTH - RIGHT);
        axis_text_short(text, ticks[i], f->y.log ? ticks[i] : step);
        put_text(out, LEFT - 7, y + 3.5, "end", text);
    }
    count = axis_ticks(&f->x, ticks, 9, &step);
    for (size_t i = 0; i < count; i++) {
        double x = at_x(f, ticks[i]);
        if (ticks[i] != floor(ticks[i]) || ticks[i] < 0) {
            continue;
        }
        buf_printf(out, "<path class=\"ax\" d=\"M%.1f %.1fv4\"/>", x, HEIGHT - BOTTOM);
        axis_text_short(text, ticks[i], fmax(step, 1));
        put_text(out, x, HEIGHT - BOTTOM + 16, "middle", text);
    }
    buf_printf(out, "<path class=\"ax\" d=\"M%.1f %.1fH%.1f\"/>", LEFT, HEIGHT - BOTTOM,
               WIDTH - RIGHT);
    put_text(out, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle", "step");
    put_text(out, 4, 14, "start", c->unit);
    if (f->y.log) {
        put_text(out, 4 + LETTER * (double)(strlen(c->unit) + 1), 14, "start", "(logarithmic)");
    }
}

static void put_legend(struct buf *out, const struct chart *c, bool limit)
{
    double x = WIDTH - RIGHT;
    if (limit) {
        x -= LETTER * (double)strlen(c->limit_name);
        put_text(out, x, 14, "start", c->limit_name);
        buf_printf(out, "<path class=\"lim\" d=\"M%.1f 10h18\"/>", x - 24);
        x -= 40;
    }
    for (size_t s = c->count; s-- > 0;) {
        if (c->series[s].curve->count == 0) {
            continue;
        }
        x -= LETTER * (double)strlen(c->series[s].name);
        put_text(out, x, 14, "start", c->series[s].name);
        if (c->series[s].points) {
            buf_printf(out, "<circle class=\"f%zu\" cx=\"%.1f\" cy=\"10\" r=\"3.5\"/>", s, x - 11);
        } else {
            buf_printf(out, "<path class=\"l l%zu\" d=\"M%.1f 10h14\"/>", s, x - 20);
        }
        x -= 38;
    }
}

/* ---- the curves */

enum which { LOW, HIGH, LINE };

static double value_of(const struct curve_point *p, enum which which)
{
    return which == LOW ? p->low : which == HIGH ? p->high : p->line;
}

static void put_line(struct buf *out, const struct frame *f, const struct curve *v,
                     const char *class, size_t s, enum which which, bool gaps)
{
    buf_printf(out, "<path class=\"%s l%zu\" d=\"", class, s);
    for (size_t i = 0; i < v->count; i++) {
        const struct curve_point *p = &v->points[i];
        bool start = i == 0 || (gaps && p->after_gap);
        bool alone = start && (i + 1 == v->count || (gaps && v->points[i + 1].after_gap));
        buf_printf(out, "%c%.1f %.1f%s", start ? 'M' : 'L', at_x(f, p->step),
                   at_y(f, value_of(p, which)), alone ? "h.01" : "");
    }
    buf_append_str(out, "\"/>\n");
}

/* From the lowest to the highest value of each piece. */
static void put_band(struct buf *out, const struct frame *f, const struct curve *v, size_t s)
{
    buf_printf(out, "<path class=\"b f%zu\" d=\"", s);
    for (size_t from = 0; from < v->count;) {
        size_t to = from + 1;
        while (to < v->count && !v->points[to].after_gap) {
            to++;
        }
        for (size_t i = from; i < to; i++) {
            buf_printf(out, "%c%.1f %.1f", i == from ? 'M' : 'L', at_x(f, v->points[i].step),
                       at_y(f, v->points[i].high));
        }
        for (size_t i = to; i-- > from;) {
            buf_printf(out, "L%.1f %.1f", at_x(f, v->points[i].step), at_y(f, v->points[i].low));
        }
        buf_append_str(out, "Z");
        from = to;
    }
    buf_append_str(out, "\"/>\n");
}

static void put_points(struct buf *out, const struct frame *f, const struct curve *v, size_t s)
{
    for (size_t i = 0; i < v->count; i++) {
        const struct curve_point *p = &v->points[i];
        buf_printf(out,
                   "<circle class=\"f%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"><title>step %.0f: "
                   "%.5g</title></circle>\n",
                   s, at_x(f, p->step), at_y(f, p->line), p->step, p->line);
    }
}

static void put_series(struct buf *out, const struct frame *f, const struct chart_series *series,
                       size_t s)
{
    const struct curve *v = series->curve;
    bool pieces = v->measured > v->count + v->not_finite;
    if (v->count == 0) {
        return;
    }
    if (pieces) {
        put_band(out, f, v, s);
    } else if (v->smooth) {
        put_line(out, f, v, "r", s, LOW, true);
    }
    put_line(out, f, v, series->points ? "r" : "l", s, LINE, !series->points);
    if (series->points && v->count <= POINTS_MAX) {
        put_points(out, f, v, s);
    }
}

/* ---- what happened */

static void put_marks(struct buf *out, const struct chart *c, const struct frame *f)
{
    double last = -1;
    for (size_t i = 0; i < c->mark_count; i++) {
        const struct chart_mark *m = &c->marks[i];
        double x = at_x(f, m->step);
        /* Many restarts at one place are one line; a decision is always shown. */
        if (m->step < f->x.low || m->step > f->x.high ||
            (m->kind == CHART_RESTART && fabs(x - last) < 1.5)) {
            continue;
        }
        last = x;
        buf_printf(out, "<g><title>");
        escape_html(out, m->text);
        buf_printf(out, "</title><path class=\"m%d\" d=\"M%.1f %.1fV%.1f\"/>", (int)m->kind, x, TOP,
                   HEIGHT - BOTTOM);
        if (m->kind == CHART_DECISION) {
            buf_printf(out, "<path class=\"bad\" d=\"M%.1f %.1fl4 -7h-8z\"/>", x, TOP + 2);
        }
        buf_append_str(out, "</g>\n");
    }
}

static void put_not_finite(struct buf *out, const struct chart *c, const struct frame *f)
{
    for (size_t s = 0; s < c->count; s++) {
        const struct curve *v = c->series[s].curve;
        if (v->not_finite == 0 || (double)v->not_finite_step < f->x.low ||
            (double)v->not_finite_step > f->x.high) {
            continue;
        }
        buf_printf(out, "<text class=\"bad\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">&#215;",
                   at_x(f, (double)v->not_finite_step), TOP + 4);
        buf_printf(out, "<title>step %llu: not finite</title></text>\n",
                   (unsigned long long)v->not_finite_step);
    }
}

bool chart_svg(struct buf *out, const struct chart *c, bool alone)
{
    struct frame f;
    if (!find_range(&f, c)) {
        return false;
    }
    bool limit = shows_limit(c, &f);
    widen(&f, c);
    chart_begin(out, c->title, WIDTH, HEIGHT, alone);
    put_axes(out, c, &f);
    put_marks(out, c, &f);
    if (limit) {
        buf_printf(out, "<path class=\"lim\" d=\"M%.1f %.1fH%.1f\"/>\n", LEFT, at_y(&f, c->limit),
                   WIDTH - RIGHT);
    }
    for (size_t s = c->count; s-- > 0;) { /* the first is the most important: on top */
        put_series(out, &f, &c->series[s], s);
    }
    put_not_finite(out, c, &f);
    put_legend(out, c, limit);
    chart_end(out);
    return true;
}
