/* How many nodes the rules leave a job: limits of its queue, user and account, quotas, the limit of
 * its array. What the pass itself has started counts. */
#ifndef DAEMON_CORE_SCHED_LIMIT_H
#define DAEMON_CORE_SCHED_LIMIT_H

#include "daemon/core/state.h"

/* Nodes that running jobs hold under one quota. */
struct quota_use {
    uint64_t hash; /* of the quota and of whom it counts apart */
    int64_t nodes;
};
struct limits {
    struct quota_use *uses; /* owned; in the order in which they were met */
    size_t use_count, use_capacity;
    struct map index; /* hash -> place in uses + 1 */
};
void limits_init(struct limits *limits, struct core *core);
void limits_fini(struct limits *limits);

/* At most how many nodes the job may start with now; less than row.nodes_min: it may not, *code and
 * *who say why. */
int64_t limits_allow(const struct limits *limits, const struct core *core, const struct job *job,
                     enum wait_code *code, uint64_t *who);
/* The pass starts it on so many nodes. */
void limits_take(struct limits *limits, struct core *core, struct job *job, uint32_t nodes);

#endif
