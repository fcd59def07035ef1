/* Utilisation and queue over time: as a picture through gnuplot, or in the terminal. */
#ifndef DAEMON_SIM_PLOT_H
#define DAEMON_SIM_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

/* One job, or one attempt of a job. */
struct plot_span {
    int64_t wait_ms, start_ms, end_ms; /* waits from, runs from, ends; wait < 0: never waited */
    uint64_t gpus;
};
struct plot_series {
    char name[64];
    double *utilisation; /* owned; per cent, `points` of them */
    double *queue;       /* owned; jobs waiting */
};
struct plot {
    const char *title;
    int64_t from_ms, to_ms;
    size_t points;
    struct plot_series *series; /* owned */
    size_t count;
};

void plot_init(struct plot *plot, const char *title, int64_t from_ms, int64_t to_ms, size_t points);
/* Means over equal stretches of time. */
void plot_add(struct plot *plot, const char *name, const struct plot_span *spans, size_t count,
              uint64_t capacity);
void plot_fini(struct plot *plot);

/* path ends in .png or .svg. ERR_NOT_FOUND without gnuplot. */
int plot_write(const struct plot *plot, const char *path, struct err *err);
/* Braille dots, columns wide; ASCII when the locale has no UTF-8. */
void plot_draw(struct buf *out, const struct plot *plot, size_t columns, bool utf8);

#endif
