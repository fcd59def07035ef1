/* A gang that failed goes on where it was: its nodes are kept for it while it backs off and for a
 * moment, so that small jobs do not take them one by one. Bounded by policy.restart_hold_ms from
 * its end: one that crashes again and again keeps nobody from anything else. */
#ifndef DAEMON_CORE_SCHED_CLAIM_H
#define DAEMON_CORE_SCHED_CLAIM_H

#include "daemon/core/state.h"

/* The job waits for its restart. */
void sched_claim_add(struct core *core, struct job *job);
/* Forgets those that are over. */
void sched_claim_prune(struct core *core);
/* Until when its nodes are kept for it; 0: they are not. */
int64_t sched_claim_until_ms(const struct core *core, const struct job *job);

#endif
