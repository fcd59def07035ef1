/* Whom to stop for a job, proven before anybody is stopped: on a copy of the timeline in which the
 * victims end when they have saved, the job must have its whole gang, in its placement, for as long
 * as it runs. Victims have a lower base priority by the policy's gap, may be preempted, have run
 * their least run time, and are chosen by the work they would lose since their newest checkpoint,
 * per node that they free. Nobody who is not needed is stopped. */
#ifndef DAEMON_CORE_SCHED_PREEMPT_H
#define DAEMON_CORE_SCHED_PREEMPT_H

#include "daemon/core/sched.h"

/* Adds the victims to the plan and takes the nodes for the job in the timeline. *start_ms: when it
 * can start. False when it cannot be done, or nobody has to be stopped; plan->again_ms: when it
 * might, if it is a matter of run time. */
bool sched_preempt(struct timeline *tl, const struct demand *d, struct sched_plan *plan,
                   int64_t *start_ms);

#endif
