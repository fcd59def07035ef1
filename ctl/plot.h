/* A plot of one or more series in characters: braille dots where the locale has them, ASCII
 * elsewhere. */
#ifndef CTL_PLOT_H
#define CTL_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "ctl/terminal.h"
#include "lib/buf.h"

struct plot_series {
    const char *name;
    const double *x, *y; /* a y that is not finite is a gap */
    size_t count;
    bool points; /* single marks instead of a line */
    enum colour colour;
};

struct plot {
    const struct plot_series *series;
    size_t series_count;
    const char *x_label;
    size_t columns, rows; /* of the whole, at least 30 x 8; rows with legend and axis */
};

/* False, and nothing appended, when no series has a finite point. */
bool plot_draw(struct buf *out, const struct plot *p, const struct terminal *t);

#endif
