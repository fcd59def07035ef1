/* --plot: where the picture goes. */
#ifndef DAEMON_SIM_CMD_PLOT_H
#define DAEMON_SIM_CMD_PLOT_H

#include "daemon/sim/plot.h"
#include "daemon/sim/replay.h"

#define PLOT_POINTS 400

/* path NULL: drawn in the terminal, on stdout; else a .png or .svg. */
int cmd_plot(const struct plot *plot, const char *path, struct err *err);
/* Adds what a policy made of a trace. */
void cmd_plot_summary(struct plot *plot, const struct summary *s, uint64_t capacity);

#endif
