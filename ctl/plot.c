#include "ctl/plot.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "report/axis.h"

struct cell {
    uint8_t dots; /* braille: bit 0 to 7 as in U+2800 + dots */
    bool mark;
    enum colour colour;
};

struct canvas {
    const struct terminal *terminal;
    struct cell *cells; /* owned; row by row from the top */
    size_t columns, rows;
    size_t dots_x, dots_y; /* dots a cell has */
    double x_min, x_max, y_min, y_max;
};

/* ---- range and scale */

static bool find_range(struct canvas *c, const struct plot *p)
{
    bool found = false;
    for (size_t s = 0; s < p->series_count; s++) {
        for (size_t i = 0; i < p->series[s].count; i++) {
            double x = p->series[s].x[i];
            double y = p->series[s].y[i];
            if (!isfinite(y)) {
                continue;
            }
            c->x_min = found ? fmin(c->x_min, x) : x;
            c->x_max = found ? fmax(c->x_max, x) : x;
            c->y_min = found ? fmin(c->y_min, y) : y;
            c->y_max = found ? fmax(c->y_max, y) : y;
            found = true;
        }
    }
    if (c->x_max - c->x_min <= 0) {
        c->x_max = c->x_min + 1;
    }
    if (c->y_max - c->y_min <= fabs(c->y_max) * 1e-9) {
        double half = c->y_max != 0 ? fabs(c->y_max) * 0.05 : 0.5;
        c->y_min -= half;
        c->y_max += half;
    }
    return found;
}

static long dot_x(const struct canvas *c, double x)
{
    return lround((x - c->x_min) / (c->x_max - c->x_min) * (double)(c->columns * c->dots_x - 1));
}

static long dot_y(const struct canvas *c, double y)
{
    return lround((c->y_max - y) / (c->y_max - c->y_min) * (double)(c->rows * c->dots_y - 1));
}

/* ---- drawing */

static struct cell *cell_at(struct canvas *c, long x, long y)
{
    return &c->cells[(size_t)y / c->dots_y * c->columns + (size_t)x / c->dots_x];
}

static void set_dot(struct canvas *c, long x, long y, enum colour colour)
{
    static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    struct cell *cell = cell_at(c, x, y);
    cell->dots |= c->dots_x == 2 ? bits[y % 4][x % 2] : 1;
    cell->colour = cell->mark ? cell->colour : colour;
}

static void draw_line(struct canvas *c, long x0, long y0, long x1, long y1, enum colour colour)
{
    long dx = labs(x1 - x0);
    long dy = -labs(y1 - y0);
    long step_x = x0 < x1 ? 1 : -1;
    long step_y = y0 < y1 ? 1 : -1;
    long error = dx + dy;
    for (;;) {
        set_dot(c, x0, y0, colour);
        if (x0 == x1 && y0 == y1) {
            return;
        }
        long twice = 2 * error;
        if (twice >= dy) {
            error += dy;
            x0 += step_x;
        }
        if (twice <= dx) {
            error += dx;
            y0 += step_y;
        }
    }
}

static void draw_series(struct canvas *c, const struct plot_series *s)
{
    bool joined = false;
    long last_x = 0;
    long last_y = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i])) {
            joined = false;
            continue;
        }
        long x = dot_x(c, s->x[i]);
        long y = dot_y(c, s->y[i]);
        if (s->points) {
            struct cell *cell = cell_at(c, x, y);
            cell->mark = true;
            cell->colour = s->colour;
        } else {
            draw_line(c, joined ? last_x : x, joined ? last_y : y, x, y, s->colour);
        }
        joined = true;
        last_x = x;
        last_y = y;
    }
}

/* ---- text around it */

/* One label a row, "" where there is no tick. Returns the widest. */
static size_t y_labels(const struct canvas *c, char (*labels)[AXIS_TEXT_BYTES])
{
    double step = axis_step(c->y_max - c->y_min, c->rows / 3 + 1);
    size_t widest = 0;
    for (double v = ceil(c->y_min / step) * step; v <= c->y_max + step / 1000; v += step) {
        long row = dot_y(c, v) / (long)c->dots_y;
        if (row >= 0 && row < (long)c->rows) {
            axis_text(labels[row], v, step);
            widest = strlen(labels[row]) > widest ? strlen(labels[row]) : widest;
        }
    }
    return widest;
}

static void append_legend(struct buf *out, const struct plot *p, const struct terminal *t,
                          size_t indent)
{
    buf_printf(out, "%*s", (int)indent, "");
    for (size_t s = 0; s < p->series_count; s++) {
        const struct plot_series *series = &p->series[s];
        if (series->count == 0) {
            continue;
        }
        const char *sign = t->utf8 ? (series->points ? "●" : "⠤⠤") : (series->points ? "o" : "**");
        terminal_paint(t, out, series->colour, sign);
        buf_printf(out, " %s   ", series->name);
    }
    while (out->len > 0 && out->data[out->len - 1] == ' ') {
        out->len--;
    }
    buf_append_str(out, "\n");
}

static void append_cell(struct buf *out, const struct canvas *c, const struct cell *cell)
{
    char braille[4] = {(char)0xe2, (char)(0xa0 | cell->dots >> 6),
                       (char)(0x80 | (cell->dots & 0x3f)), 0};
    const struct terminal *t = c->terminal;
    if (cell->mark) {
        terminal_paint(t, out, cell->colour, t->utf8 ? "●" : "o");
    } else if (cell->dots != 0) {
        terminal_paint(t, out, cell->colour, t->utf8 ? braille : "*");
    } else {
        buf_append_str(out, " ");
    }
}

static void append_rows(struct buf *out, const struct canvas *c, char (*labels)[AXIS_TEXT_BYTES],
                        size_t widest)
{
    bool utf8 = c->terminal->utf8;
    for (size_t row = 0; row < c->rows; row++) {
        bool tick = labels[row][0] != 0;
        buf_printf(out, "%*s %s", (int)widest, labels[row],
                   tick ? (utf8 ? "┤" : "+") : (utf8 ? "│" : "|"));
        size_t last = c->columns;
        while (last > 0 && c->cells[row * c->columns + last - 1].dots == 0 &&
               !c->cells[row * c->columns + last - 1].mark) {
            last--;
        }
        for (size_t x = 0; x < last; x++) {
            append_cell(out, c, &c->cells[row * c->columns + x]);
        }
        buf_append_str(out, "\n");
    }
}

static void append_x_axis(struct buf *out, const struct canvas *c, const char *label, size_t widest)
{
    bool utf8 = c->terminal->utf8;
    double step = fmax(1, axis_step(c->x_max - c->x_min, c->columns / 16 + 1));
    char *numbers = mem_alloc(c->columns + AXIS_TEXT_BYTES);
    bool *ticks = mem_alloc_array(c->columns, sizeof *ticks);
    size_t used = 0;
    for (double v = ceil(c->x_min / step) * step; v <= c->x_max; v += step) {
        char text[AXIS_TEXT_BYTES];
        size_t column = (size_t)(dot_x(c, v) / (long)c->dots_x);
        axis_text(text, v, step);
        size_t half = strlen(text) / 2;
        size_t start = column > half ? column - half : 0;
        /* The label of the axis follows after the last column. */
        start = start + strlen(text) > c->columns ? c->columns - strlen(text) : start;
        ticks[column] = true;
        if (start >= used + (used > 0)) {
            memset(numbers + used, ' ', start - used);
            memcpy(numbers + start, text, strlen(text));
            used = start + strlen(text);
        }
    }
    buf_printf(out, "%*s %s", (int)widest, "", utf8 ? "└" : "+");
    for (size_t x = 0; x < c->columns; x++) {
        buf_append_str(out, ticks[x] ? (utf8 ? "┬" : "+") : (utf8 ? "─" : "-"));
    }
    numbers[used] = 0;
    buf_printf(out, "\n%*s%s  %s\n", (int)widest + 2, "", numbers, label);
    free(numbers);
    free(ticks);
}

bool plot_draw(struct buf *out, const struct plot *p, const struct terminal *t)
{
    struct canvas c = {.terminal = t, .dots_x = t->utf8 ? 2 : 1, .dots_y = t->utf8 ? 4 : 1};
    if (!find_range(&c, p)) {
        return false;
    }
    c.rows = (p->rows > 8 ? p->rows : 8) - 3; /* legend, axis, its numbers */
    char(*labels)[AXIS_TEXT_BYTES] = mem_alloc_array(c.rows, sizeof *labels);
    size_t widest = y_labels(&c, labels);
    size_t taken = widest + 2 + strlen(p->x_label) + 2;
    c.columns = p->columns > taken + 10 ? p->columns - taken : 10;
    c.cells = mem_alloc_array(c.columns * c.rows, sizeof *c.cells);
    for (size_t s = 0; s < p->series_count; s++) {
        draw_series(&c, &p->series[s]);
    }
    append_legend(out, p, t, widest + 2);
    append_rows(out, &c, labels, widest);
    append_x_axis(out, &c, p->x_label, widest);
    free(c.cells);
    free(labels);
    return true;
}
