/* Where the time went: attempts along it, and what it was made of. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/format.h"
#include "report/axis.h"
#include "report/chart.h"
#include "report/escape.h"

#define WIDTH  760.0
#define EDGE   10.0
#define LETTER 6.1
#define TICKS  8

static const double clock_steps_ms[] = {1e3,    2e3,    5e3,     10e3,    30e3,
                                        60e3,   120e3,  300e3,   600e3,   1800e3,
                                        3600e3, 7200e3, 14400e3, 28800e3, 86400e3};

/* A distance that is round on a clock; from days on, round in days. */
static double clock_step(double length_ms)
{
    for (size_t i = 0; i < sizeof clock_steps_ms / sizeof clock_steps_ms[0]; i++) {
        if (length_ms / clock_steps_ms[i] <= TICKS) {
            return clock_steps_ms[i];
        }
    }
    return 86400e3 * ceil(axis_step(length_ms / 86400e3, TICKS));
}

static double at(double ms, double length_ms)
{
    return EDGE + ms / length_ms * (WIDTH - 2 * EDGE);
}

static void put_duration(struct buf *out, double ms)
{
    format_duration(out, ms < 9e18 ? (int64_t)ms : INT64_MAX);
}

void chart_spans_svg(struct buf *out, const char *title, double length_ms,
                     const struct chart_span *spans, size_t count, const double *points,
                     size_t point_count, bool alone)
{
    static const char *const looks[] = {"f0", "f5", "bad"};
    length_ms = length_ms > 0 ? length_ms : 1;
    chart_begin(out, title, WIDTH, 84, alone);
    for (size_t i = 0; i < count; i++) {
        double x = at(spans[i].from, length_ms);
        double width = fmax(at(spans[i].to, length_ms) - x, 0.8);
        buf_printf(out,
                   "<rect class=\"%s\" x=\"%.1f\" y=\"10\" width=\"%.1f\" height=\"26\" rx=\"2\">",
                   looks[spans[i].look], x, fmax(width - 1, 0.8));
        buf_append_str(out, "<title>");
        escape_html(out, spans[i].text);
        buf_append_str(out, "</title></rect>\n");
    }
    double last = -10;
    for (size_t i = 0; i < point_count; i++) {
        double x = at(points[i], length_ms);
        if (fabs(x - last) >= 1) { /* closer ones are one */
            buf_printf(out, "<path class=\"l l2\" d=\"M%.1f 41v8\"/>", x);
            last = x;
        }
    }
    double step = clock_step(length_ms);
    buf_printf(out, "\n<path class=\"ax\" d=\"M%.1f 56H%.1f\"/>\n", EDGE, WIDTH - EDGE);
    for (double ms = 0; ms <= length_ms; ms += step) {
        double x = at(ms, length_ms);
        buf_printf(out, "<path class=\"ax\" d=\"M%.1f 56v4\"/><text x=\"%.1f\" y=\"74\" ", x, x);
        buf_printf(out, "text-anchor=\"%s\">", ms == 0 ? "start" : "middle");
        put_duration(out, ms);
        buf_append_str(out, "</text>\n");
    }
    chart_end(out);
}

void chart_parts_svg(struct buf *out, const char *title, const struct chart_part *parts,
                     size_t count, bool alone)
{
    double whole = 0;
    for (size_t i = 0; i < count; i++) {
        whole += parts[i].size;
    }
    whole = whole > 0 ? whole : 1;
    double rows = ceil((double)count / 4);
    chart_begin(out, title, WIDTH, 40 + 20 * rows, alone);
    double x = EDGE;
    for (size_t i = 0; i < count; i++) {
        double width = parts[i].size / whole * (WIDTH - 2 * EDGE);
        buf_printf(out, "<rect class=\"f%zu\" x=\"%.1f\" y=\"6\" width=\"%.1f\" height=\"22\">",
                   i % CHART_PARTS, x, fmax(width - 0.6, 0));
        buf_append_str(out, "<title>");
        escape_html(out, parts[i].name);
        buf_printf(out, " %.1f%%</title></rect>\n", 100 * parts[i].size / whole);
        double key_x = EDGE + (double)(i % 4) * (WIDTH - 2 * EDGE) / 4;
        double key_y = 48 + 20 * (double)(i / 4);
        buf_printf(out, "<rect class=\"f%zu\" x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\"/>",
                   i % CHART_PARTS, key_x, key_y - 9);
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\">", key_x + 15, key_y);
        escape_html(out, parts[i].name);
        buf_printf(out, " %.1f%%</text>\n", 100 * parts[i].size / whole);
        x += width;
    }
    chart_end(out);
}
