/* Yardsticks: FIFO and EASY backfill (Lifka 1995), written without any part of the core. Both are
 * told the same as the core: sizes, and for how long a job may run. */
#ifndef DAEMON_SIM_YARD_H
#define DAEMON_SIM_YARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct yard_job { /* by time of submit */
    int64_t submit_ms, run_ms, estimate_ms;
    uint32_t nodes, gpus; /* gpus on each node */
    int64_t start_ms;     /* out; -1: it can never fit */
};

enum yard_policy { YARD_FIFO, YARD_EASY };
/* FIFO: in the order of submits, and none starts before the one ahead. EASY: the first one that
 * must wait gets a reservation; another may start only if it does not delay that. */
void yard_run(enum yard_policy policy, uint32_t nodes, uint32_t gpus, struct yard_job *jobs,
              size_t count);

#endif
