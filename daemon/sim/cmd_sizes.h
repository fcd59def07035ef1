/* One scenario on several numbers of nodes. */
#ifndef DAEMON_SIM_CMD_SIZES_H
#define DAEMON_SIM_CMD_SIZES_H

#include "daemon/sim/cmd.h"

#define SIZES_MAX 64

struct sizes {
    const char *scenario, *faults; /* as in scenario_load; borrowed */
    const char *const *set;
    size_t set_count;
    uint64_t seed;
    uint32_t nodes[SIZES_MAX];
    size_t count;
};
/* N,N...; changes the text. */
int sizes_parse(char *text, struct sizes *sizes, struct err *err);
/* Prints a row a size. */
int sizes_run(const struct sizes *sizes, enum report_format format, struct err *err);

#endif
