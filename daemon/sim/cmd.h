/* The subcommands of dssim; each parses its own arguments and returns the exit status. */
#ifndef DAEMON_SIM_CMD_H
#define DAEMON_SIM_CMD_H

#include <stdint.h>

#include "daemon/sim/report.h"
#include "lib/err.h"

int cmd_run(int argc, char **argv);
int cmd_swarm(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_whatif(int argc, char **argv);

/* For error lines: "dssim: text", and the status that belongs to the code. */
int cmd_fail(const struct err *err);
/* A whole number within bounds; what: the option's name. */
int cmd_number(const char *what, const char *text, uint64_t low, uint64_t high, uint64_t *value,
               struct err *err);
int cmd_format(const char *text, enum report_format *format, struct err *err);

#endif
