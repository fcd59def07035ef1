/* What the guards of trainers decide (trainer/guard.h), as events of the coordinator. A decision
 * ends its attempt, so an attempt has one at most, and the epoch of the newest one that is known
 * tells a repeat. The run's own record is the trainer's; here it is told, and what follows from it
 * is done: checkpoints behind a rollback are given up, their work is lost, a node that computes
 * wrongly is drained. recover.h says what becomes of the job. */
#ifndef DAEMON_CORE_GUARD_H
#define DAEMON_CORE_GUARD_H

#include "daemon/core/state.h"

void guard_report(struct core *core, const struct input *in);

#endif
