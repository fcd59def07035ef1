/* Who starts next, and where. Pure functions from the state to a plan. Strict order: priority, then
 * age; a gang starts as a whole or not at all, and the first that does not fit holds up those
 * behind it. */
#ifndef DAEMON_CORE_SCHED_H
#define DAEMON_CORE_SCHED_H

#include "daemon/core/state.h"

struct plan {
    struct job *job;
    struct node **nodes; /* owned; node_count of them, in rank order */
    size_t node_capacity;
    uint32_t node_count;
};
/* A zeroed one is empty. */
void plan_fini(struct plan *plan);

/* Nodes for this job now. A job that is started again gets the nodes it had, as far as they are
 * free; otherwise the fullest ones that still have room, ties by name. False when it does not fit;
 * plan is then undefined. */
bool sched_place(const struct core *core, struct job *job, struct plan *plan);
/* The next start, false when there is none. */
bool sched_next(const struct core *core, struct plan *plan);

/* Whether the nodes ever registered could hold such a gang, if they were all up and empty. Before
 * the first one, anything may come. large_enough: nodes with so many accelerators, of the largest
 * place when it has to be one. */
bool sched_can_ever_fit(const struct core *core, uint32_t nodes, int64_t gpus_per_node,
                        enum placement placement, uint32_t *large_enough);
/* A job has come into the queue, or left it. */
void sched_job_came(struct core *core, struct job *job);
void sched_job_left(struct core *core, struct job *job);

/* Room on one node for the ranks of such a job. */
bool sched_node_has_room(const struct node *node, int64_t gpus_per_node);

#endif
