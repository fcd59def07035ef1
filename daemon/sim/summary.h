/* Rows of a comparison, as a table, CSV or JSON. */
#ifndef DAEMON_SIM_SUMMARY_H
#define DAEMON_SIM_SUMMARY_H

#include "daemon/sim/replay.h"
#include "daemon/sim/report.h"
#include "lib/buf.h"

struct summary_row {
    const char *variant; /* borrowed; what is other than in the first row; NULL: nothing */
    uint32_t nodes, gpus;
    const struct summary *summary; /* borrowed */
};
struct summary_head {
    bool compares;               /* the other rows with the first one */
    const char *trace, *cluster; /* borrowed; cluster: a sentence about it, or empty */
    size_t jobs, skipped, rounded, refused;
    uint64_t seed;
    const struct fleet_result *result; /* of the first row, by the core */
};
void summary_write(struct buf *out, enum report_format format, const struct summary_head *head,
                   const struct summary_row *rows, size_t count);

#endif
