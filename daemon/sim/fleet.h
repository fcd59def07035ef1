/* A cluster of any size over months of virtual time: the real core and pump; nodes and gangs that
 * do what they are told, fail by a table of rates, and report no more often than it matters.
 *
 * With faults of the coordinator its tables are kept (store_mem.h): it dies with what it had not
 * committed, and is loaded again.
 *
 * What is left out, because it changes no decision: heartbeats between two looks at a lease, step
 * reports between two checkpoints (unless a fault comes), and all checkpoints but every n-th and
 * the last one before a fault. Ledger rows are audited as they are committed and not kept. */
#ifndef DAEMON_SIM_FLEET_H
#define DAEMON_SIM_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/core.h"
#include "daemon/sim/audit.h"
#include "daemon/sim/schedule.h"
#include "lib/err.h"

/* When the virtual clock begins, on people's clocks: 2024-01-01. */
#define FLEET_EPOCH_MS 1704067200000

enum fleet_fault_kind {
    FAULT_RANK,    /* a process dies; its node stays as it is */
    FAULT_NETWORK, /* a collective fails or hangs; everybody lives */
    FAULT_GPU,     /* a process dies and its accelerator is broken until it is repaired */
    FAULT_NODE,    /* the machine is gone without a word until it is repaired */
    FAULT_WORKER,  /* the worker process is away; its ranks go on, and it takes them over again */
    FAULT_COORDINATOR, /* it is away, and comes back with what it had committed; ranks go on */
};
struct fleet_fault {
    char *name; /* owned */
    enum fleet_fault_kind kind;
    double per_node_day, per_day; /* per_day: of the coordinator, whatever the cluster's size */
    int64_t
        detect_ms; /* from the fault to the first sign of it; of a lost node the lease decides */
    int64_t repair_ms;
    uint64_t hits; /* out: faults that hit a job; of worker and coordinator, all */
};

struct fleet_setup {
    uint64_t seed;
    uint32_t nodes, gpus;
    const char *model; /* of the accelerators */
    int64_t micro_usd_per_gpu_hour;
    struct core_config core;
    int64_t launch_ms; /* order to started */
    int64_t load_ms;   /* started to the first step */
    int64_t stop_ms;   /* asked to stop, to gone */
    struct fleet_fault *faults;
    size_t fault_count;
    int64_t horizon_ms; /* then everything is cancelled; 0: until all jobs have ended */
    bool verbose;
};

struct fleet_job {
    char *name, *user, *account, *stage; /* owned; NULL: a default */
    int64_t submit_ms;
    size_t after; /* submitted when job after - 1 has completed; 0: at submit_ms */
    int64_t priority;
    uint32_t nodes, gpus; /* gpus on each node */
    bool has_train;
    int64_t work_ms;  /* of training or running, without start and saving */
    int64_t limit_ms; /* 0: none */
    int64_t crash_ms; /* each attempt fails after so long; 0: none does */
    struct schedule schedule;
    int64_t save_every_ms, save_stall_ms, save_write_ms;
    uint32_t save_told; /* every n-th checkpoint is told; at least 1 */

    /* what became of it */
    uint64_t id;   /* 0: never submitted, or refused */
    char *refused; /* owned; why, or NULL */
    enum job_state state;
    int64_t submitted_ms, started_ms, ended_ms; /* on the virtual clock; -1: never */
    int64_t waits_ms;                           /* since when its next attempt is waited for */
    int64_t useful_ms;                          /* work done that was not lost */
    uint64_t attempts;
};

struct fleet_span { /* accelerators at work for one attempt, which was waited for */
    int64_t wait_ms, from_ms, to_ms;
    uint64_t gpus;
};

struct fleet_result {
    struct audit audit;
    int64_t end_ms;
    uint64_t hash, inputs, failures;
    struct fleet_span *spans; /* owned */
    size_t span_count, span_capacity;
};

/* Runs all jobs; ERR_CORRUPT when a checker finds something, ERR_AGAIN when jobs wait for ever. */
int fleet_run(struct fleet_setup *setup, struct fleet_job *jobs, size_t count,
              struct fleet_result *result, struct err *err);
void fleet_result_fini(struct fleet_result *result);
void fleet_jobs_free(struct fleet_job *jobs, size_t count);

#endif
