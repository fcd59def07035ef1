/* In which order waiting jobs are looked at. */
#ifndef DAEMON_CORE_SCHED_ORDER_H
#define DAEMON_CORE_SCHED_ORDER_H

#include "daemon/core/state.h"

struct ranked {
    int64_t score; /* in thousandths of a point */
    uint64_t id;
    struct job *job;
};

/* A job's priority with its queue's: what people asked for. */
int64_t sched_base_priority(const struct job *job);
/* Brings the factors of fair share up to now: before any score. */
void sched_share_out(struct core *core);
int64_t sched_score(const struct core *core, const struct job *job, double cluster_gpus);
/* The queue by score, ties by id. Caller frees; core->queue_count items. */
struct ranked *sched_rank(struct core *core);
/* The same jobs in the order in which they fill holes: by base priority, then the shortest, then by
 * rank; count items from `list`. */
void sched_rank_for_holes(struct ranked *list, size_t count);
double sched_cluster_gpus(const struct core *core);

#endif
