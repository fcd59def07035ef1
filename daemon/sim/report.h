/* What a fleet's run comes to, as a table, CSV or JSON (contract: ds/sim/v1). */
#ifndef DAEMON_SIM_REPORT_H
#define DAEMON_SIM_REPORT_H

#include "daemon/sim/fleet.h"
#include "daemon/sim/scenario.h"
#include "lib/buf.h"

enum report_format { REPORT_TABLE, REPORT_CSV, REPORT_JSON };
/* "table", "csv", "json"; -1 for any other. */
int report_format_parse(const char *text);

struct report_stage {
    const char *stage; /* borrowed from the audit */
    int64_t gpu_ms, cost_micro_usd;
};
struct report {
    struct report_stage stages[16];
    size_t stage_count;
    int64_t gpu_ms, cost_micro_usd; /* of jobs */
    double ettr;    /* useful training time of all time from the first start to the end */
    double goodput; /* productive of allocated, by the ledger */
    double utilisation;
    uint64_t jobs, completed, restarts;
};
void report_make(struct report *r, const struct scenario *s, const struct fleet_result *result);
void report_write(struct buf *out, enum report_format format, const struct report *r,
                  const struct scenario *s, const struct fleet_result *result);

/* What the scenario expects; ERR_CONFLICT names the first figure that is otherwise. */
int report_check(const struct report *r, const struct scenario *s,
                 const struct fleet_result *result, struct err *err);

/* 1234567.8 -> 1,234,567.8 */
void report_number(struct buf *out, double value, int decimals);

#endif
