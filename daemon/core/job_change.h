/* What people change about jobs after the submit: order, limits, size; suspend and resume. */
#ifndef DAEMON_CORE_JOB_CHANGE_H
#define DAEMON_CORE_JOB_CHANGE_H

#include "daemon/core/state.h"

/* Inputs. */
void job_update(struct core *core, const struct input *in);
void job_resize(struct core *core, const struct input *in);
void job_suspend(struct core *core, const struct input *in);
void job_resume(struct core *core, const struct input *in);
void job_requeue(struct core *core, const struct input *in);

#endif
