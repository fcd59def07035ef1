/* Jobs: the life of a submission, and the queue.
 *
 *   PENDING --> STARTING --> RUNNING --> (all ranks 0) --> COMPLETED
 *    ^  ^ |        '-----------'|
 *    |  | |                     v                 recover.h:  FAILED
 *    |  | '-- hold --> HELD   STOPPING ---------> again:      PENDING, perhaps not before some time
 *    |  '--- release ---'       |  '------------> by a person or for storage, numbers: HELD
 *    '--------------------------'------ cancel -> CANCELLED
 *
 * stop_cause says why a job is STOPPING: failure, cancel, hold, time_limit. A cancel replaces any
 * other. Ended jobs leave memory. */
#ifndef DAEMON_CORE_JOB_H
#define DAEMON_CORE_JOB_H

#include "daemon/core/state.h"

/* Inputs. */
void job_cancel(struct core *core, const struct input *in);
void job_hold(struct core *core, const struct input *in);
void job_release(struct core *core, const struct input *in);
void job_timer(struct core *core, uint64_t id);

/* From attempts. */
void job_started(struct core *core, struct job *job);
void job_running(struct core *core, struct job *job);
void job_stopping(struct core *core, struct job *job, const char *stop_cause);
void job_attempt_ended(struct core *core, struct job *job);

/* Puts a new or loaded job into memory; ids must grow. */
void job_insert(struct core *core, struct job *job);
/* Into the queue if it may start now, else its timer is set. */
void job_enqueue(struct core *core, struct job *job);
void job_destroy(void *job);
bool job_state_is_final(enum job_state state);

#endif
