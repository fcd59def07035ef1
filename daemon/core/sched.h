/* Who starts next, where, and when the others will. A pass reads the state and makes a plan; only
 * core.c carries it out. (What a pass writes is its own: the `wait` of jobs, and fields that count
 * within it.)
 *
 * Waiting jobs are looked at by score. A gang starts as a whole or not at all. The first that does
 * not fit (as many as the policy says) get a start time and nodes: the earliest at which, by the
 * time limits of what runs and the maintenance that is planned, enough nodes have room. All others
 * may start only where they do not touch these plans: they fill holes and delay nobody. The very
 * first may make others stop, if that provably starts it (sched_preempt.h). */
#ifndef DAEMON_CORE_SCHED_H
#define DAEMON_CORE_SCHED_H

#include "daemon/core/timeline.h"

struct sched_start {
    struct job *job;
    size_t first; /* of its nodes in the plan's list */
    uint32_t node_count, spare_count;
};
struct sched_plan {
    struct sched_start *starts; /* owned */
    size_t start_count, start_capacity;
    struct node **nodes; /* owned; of all starts: the gang in rank order, then its spares */
    size_t node_count, node_capacity;
    struct job *preemptor; /* NULL: nobody is to be stopped */
    struct job **victims;  /* owned */
    size_t victim_count, victim_capacity;
    int64_t again_ms; /* when another pass may find more though nothing happened; TIME_NEVER */
};
void sched_plan_fini(struct sched_plan *plan);

/* Plans with the `depth` first jobs of the order; whole: of the order as it is now, else as the
 * last such pass found it. */
void sched_pass(struct core *core, bool whole, uint32_t depth, struct sched_plan *plan);

/* What would happen to a job that is in no list, or in the queue: its wait says it, and the plan
 * whether it starts or whom it makes stop. Everybody ahead of it gets a planned start. */
void sched_probe(struct core *core, struct job *job, struct sched_plan *plan);

/* Whether the nodes ever registered could hold such a gang, if they were all up and empty. Before
 * the first one, anything may come. large_enough: nodes with so many accelerators, of the largest
 * place when it has to be one. */
bool sched_can_ever_fit(struct core *core, uint32_t nodes, int64_t gpus_per_node,
                        enum placement placement, uint32_t *large_enough);
/* A job has come into the queue, or left it. */
void sched_job_came(struct core *core, struct job *job);
void sched_job_left(struct core *core, struct job *job);

#endif
