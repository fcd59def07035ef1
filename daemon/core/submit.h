/* Submission: the idempotency key, what can never fit, and the new row. */
#ifndef DAEMON_CORE_SUBMIT_H
#define DAEMON_CORE_SUBMIT_H

#include "daemon/core/state.h"

void job_submit(struct core *core, const struct input *in);

/* A job of this request with the rows' defaults, in no list. */
struct job *job_from_spec(struct core *core, const struct input_submit *submit, uint64_t id,
                          int64_t limit_ms);
/* Whether it may be submitted; false after a refusal. limit_ms: the time limit it gets. */
bool job_check_submit(struct core *core, const struct input *in, int64_t *limit_ms);

#endif
