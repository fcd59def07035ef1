/* How the cluster is shared: the data of dsd.yaml's `scheduler:`. Pure; texts and arrays belong to
 * whoever filled it in, and outlive the core. */
#ifndef DAEMON_CORE_POLICY_H
#define DAEMON_CORE_POLICY_H

#include "daemon/core/rows.h"

/* A class of priorities, for quotas: from `priority` on, up to the next class. */
struct policy_class {
    const char *name;
    int64_t priority;
};
/* Where nodes stand; NULL: not said. */
struct policy_place {
    const char *nodes; /* gpu[001-032] */
    const char *zone, *rack, *leaf;
};

struct policy {
    /* A job's score: its priority + its queue's priority + the sum of weight x factor, each factor
     * between 0 and 1. Higher goes first, then the lower id. */
    struct {
        int64_t age;          /* 10: how long it could have started, full after age_full_ms */
        int64_t age_full_ms;  /* 7 days */
        int64_t fair_share;   /* 10: 2^-(used / share), of its account and user */
        int64_t half_life_ms; /* 7 days: what was used counts half after this */
        int64_t slowdown;     /* 10: what it waited of what it waited and will take */
        int64_t size;         /* 5: its part of the cluster's accelerators */
        int64_t restart;      /* 1000: it lost a node, and its gang was running */
    } priority;
    struct {
        uint32_t reservations; /* 1: blocked jobs that get a start time and nodes which smaller ones
                                  may not delay */
        uint32_t depth;        /* 100000: waiting jobs looked at in a pass */
        int64_t horizon_ms;    /* 30 days: no start is planned later than this */
        /* Who has waited this long and as many of its own time limits goes before all others, the
         * oldest first. 12 h and 2; 0 ms: never. */
        int64_t overtaken_ms, overtaken_lengths;
        bool shortest_first; /* true: among jobs of one priority, those that fill holes are taken by
                                time limit, not by score */
    } backfill;
    int64_t restart_hold_ms;    /* 2 min: how long a gang that failed finds its nodes kept for it */
    int64_t assumed_runtime_ms; /* 1 day: of a job without a time limit, for estimates */
    struct {
        bool enabled;           /* true */
        int64_t priority_gap;   /* 1: how much lower a victim's priority must be */
        int64_t min_runtime_ms; /* 15 min: no attempt is made to stop earlier */
        int64_t save_first_ms;  /* 5 min: to save, while nothing was measured */
        int64_t save_max_ms;    /* 30 min: at most, whatever was measured */
        uint32_t per_job;       /* 3: preemptions for one job since its newest checkpoint */
    } preemption;
    uint32_t spares;                    /* 0: nodes that only a job which lost one may take */
    const struct policy_class *classes; /* ascending */
    size_t class_count;
    const struct policy_place *places;
    size_t place_count;
    /* As they are at first; what dsctl changed stays as it was changed. Without any, a job may name
     * any queue, and makes it. */
    const struct queue_row *queues;
    size_t queue_count;
    const struct account_row *accounts;
    size_t account_count;
    bool accounts_closed; /* false: an unknown account is made when a job names it */
};

void policy_default(struct policy *policy);
/* A queue without limits, and an account with one share. */
struct queue_row policy_queue_default(void);
struct account_row policy_account_default(void);
/* The class that a priority falls into; NULL below the lowest. */
const struct policy_class *policy_class_of(const struct policy *policy, int64_t priority);

#endif
