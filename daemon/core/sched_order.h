/* In which order waiting jobs are looked at. */
#ifndef DAEMON_CORE_SCHED_ORDER_H
#define DAEMON_CORE_SCHED_ORDER_H

#include "daemon/core/state.h"

struct ranked {
    int64_t score; /* in thousandths of a point */
    uint64_t id;
    int64_t base, length_ms; /* base priority; time limit that is left, INT64_MAX: none */
    bool is_promised;
    struct job *job;
};

/* A job's priority with its queue's: what people asked for. */
int64_t sched_base_priority(const struct job *job);
/* Brings the factors of fair share up to now: before any score. */
void sched_share_out(struct core *core);
/* Nobody is overtaken for ever: who has waited long, as measured by his own length, goes before all
 * others. */
bool sched_is_overdue(const struct core *core, const struct job *job);
/* It was running when its gang failed, and goes on before others begin. */
bool sched_goes_on(const struct core *core, const struct job *job);
int64_t sched_score(const struct core *core, const struct job *job, double cluster_gpus);
struct ranked sched_ranked(const struct core *core, struct job *job, double cluster_gpus);
/* The queue in no order. Caller frees; core->queue_count items. */
struct ranked *sched_list(struct core *core);
/* Orders. By score, ties by id; or as holes are filled: by base priority, then the shortest, then
 * by score. */
typedef int sched_compare(const void *a, const void *b);
int sched_compare_score(const void *a, const void *b);
int sched_compare_holes(const void *a, const void *b);
/* Puts the first k of that order to the front, in order; the others follow in none. */
void sched_take_first(struct ranked *list, size_t count, size_t k, sched_compare *compare);
double sched_cluster_gpus(const struct core *core);

#endif
