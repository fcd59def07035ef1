/* The plot in characters: each cell is 2 x 4 dots of a braille pattern; without UTF-8 one mark. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/plot.h"
#include "lib/mem.h"

#define ROWS  8
#define LABEL 9

struct canvas {
    uint8_t *dots; /* owned; bits of braille, by cell */
    size_t columns;
};

static void set_dot(struct canvas *c, size_t x, size_t y)
{
    static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    c->dots[y / 4 * c->columns + x / 2] |= bits[y % 4][x % 2];
}

static double value_at(const struct plot *plot, const double *values, size_t x, size_t width)
{
    size_t from = x * plot->points / width, to = (x + 1) * plot->points / width;
    double sum = 0;
    to = to > from ? to : from + 1;
    for (size_t i = from; i < to; i++) {
        sum += values[i];
    }
    return sum / (double)(to - from);
}

static void draw_line(struct canvas *c, const struct plot *plot, const double *values, double top)
{
    size_t width = c->columns * 2, height = ROWS * 4, before = 0;
    for (size_t x = 0; x < width; x++) {
        double share = value_at(plot, values, x, width) / top;
        share = share < 0 ? 0 : share > 1 ? 1 : share;
        size_t y = (size_t)llround((1 - share) * (double)(height - 1));
        before = x == 0 ? y : before;
        size_t low = y < before ? y : before, high = y < before ? before : y;
        for (size_t at = low; at <= high; at++) {
            set_dot(c, x, at);
        }
        before = y;
    }
}

static void put_cell(struct buf *out, const struct canvas *c, size_t cell, bool utf8)
{
    uint8_t bits = c->dots[cell];
    if (!utf8) {
        buf_append_str(out, bits != 0 ? "*" : " ");
        return;
    }
    char text[3] = {(char)0xe2, (char)(0xa0 | bits >> 6), (char)(0x80 | (bits & 0x3f))};
    buf_append(out, text, bits == 0 ? 0 : 3);
    buf_append_str(out, bits == 0 ? " " : "");
}

static void draw_panel(struct buf *out, const struct plot *plot, const struct plot_series *s,
                       bool queue, size_t columns, bool utf8)
{
    const double *values = queue ? s->queue : s->utilisation;
    double top = queue ? 1 : 100;
    for (size_t i = 0; i < plot->points; i++) {
        top = values[i] > top ? values[i] : top;
    }
    struct canvas c = {.columns = columns};
    c.dots = mem_alloc_array(columns * ROWS, 1);
    draw_line(&c, plot, values, top);
    buf_printf(out, "%s: %s\n", s->name, queue ? "jobs waiting" : "accelerators in use, %");
    for (size_t row = 0; row < ROWS; row++) {
        if (row == 0 || row == ROWS - 1) {
            buf_printf(out, "%*.4g ", LABEL - 1, row == 0 ? top : 0.0);
        } else {
            buf_printf(out, "%*s", LABEL, "");
        }
        buf_append_str(out, utf8 ? "\xe2\x94\x82" : "|");
        for (size_t i = 0; i < columns; i++) {
            put_cell(out, &c, row * columns + i, utf8);
        }
        buf_append_str(out, "\n");
    }
    free(c.dots);
}

void plot_draw(struct buf *out, const struct plot *plot, size_t columns, bool utf8)
{
    size_t width = columns > LABEL + 20 ? columns - LABEL - 1 : 20;
    char days[32];
    snprintf(days, sizeof days, "%.3g days", (double)(plot->to_ms - plot->from_ms) / 86400000.0);
    buf_printf(out, "\n%s\n", plot->title);
    for (size_t s = 0; s < plot->count; s++) {
        draw_panel(out, plot, &plot->series[s], false, width, utf8);
        draw_panel(out, plot, &plot->series[s], true, width, utf8);
        buf_printf(out, "%*s0%*s\n", LABEL + 1, "", (int)width - 1, days);
    }
}
