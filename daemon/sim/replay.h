/* A trace on a cluster: the core's schedule beside the yardsticks'. */
#ifndef DAEMON_SIM_REPLAY_H
#define DAEMON_SIM_REPLAY_H

#include "daemon/core/core.h"
#include "daemon/sim/fleet.h"
#include "daemon/sim/trace.h"

struct replay_setup {
    uint32_t nodes, gpus;   /* of the cluster; 0: what the trace says, or what fits */
    uint64_t procs_per_gpu; /* of the trace; 0: as the cluster needs it */
    bool perfect;           /* everybody knows how long jobs run */
    struct core_config core;
    uint64_t seed;
    bool verbose;
};

struct outcome {                         /* of one job under one policy */
    int64_t submit_ms, start_ms, end_ms; /* start -1: never */
    uint32_t nodes, gpus;
};
struct summary {
    const char *name;         /* borrowed */
    struct outcome *outcomes; /* owned */
    size_t count;
    size_t started, never;
    double wait_mean_ms, wait_median_ms, wait_p95_ms, wait_max_ms;
    double slowdown_mean, slowdown_p95;         /* bounded: at least 10 s of running */
    double gang_wait_mean_ms, gang_wait_max_ms; /* jobs of a quarter of the cluster and more */
    size_t gangs;
    double utilisation;
    int64_t makespan_ms;
};

/* Fills in what setup leaves open; text: a sentence about it, for people. */
int replay_fit(struct replay_setup *setup, const struct trace *trace, char *text, size_t text_bytes,
               struct err *err);
/* What the core makes of it; result for the ledger's side. */
int replay_core(const struct replay_setup *setup, const struct trace *trace,
                struct summary *summary, struct fleet_result *result, struct err *err);
/* "fifo" or "easy". */
void replay_yard(const struct replay_setup *setup, const struct trace *trace, const char *name,
                 struct summary *summary);
void summary_fini(struct summary *summary);

#endif
