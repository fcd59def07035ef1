/* Submission: the idempotency key, what can never fit, and the new row. */
#ifndef DAEMON_CORE_SUBMIT_H
#define DAEMON_CORE_SUBMIT_H

#include "daemon/core/state.h"

void job_submit(struct core *core, const struct input *in);

#endif
