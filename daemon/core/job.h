/* Jobs: the life of a submission, and the queue.
 *
 *   PENDING --> STARTING --> RUNNING --> (all ranks 0) --> COMPLETED
 *    ^  ^ |        '-----------'|
 *    |  | |                     v                 recover.h:  FAILED
 *    |  | '-- hold --> HELD   STOPPING ---------> again:      PENDING, perhaps not before some time
 *    |  '--- release ---'       |  '------------> by a person or for storage, numbers: HELD
 *    '--------------------------'------ cancel -> CANCELLED
 *
 * stop_cause says why a job is STOPPING. For good: cancel, time_limit, deadline. For now: hold;
 * suspend (-> SUSPENDED); preempt, maint, requeue, resize (-> PENDING). Or failure. A cancel
 * replaces any other. Ended jobs leave memory. */
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

/* Makes these stop, with a save, for the preemptor. */
void job_preempt(struct core *core, struct job *preemptor, struct job *const *victims,
                 size_t count);
/* PENDING or otherwise not running -> HELD. */
void job_put_on_hold(struct core *core, struct job *job, const char *code, const char *text);
/* PENDING -> SUSPENDED. */
void job_suspend_now(struct core *core, struct job *job, const char *text);
/* SUSPENDED or HELD -> PENDING. */
void job_back_to_queue(struct core *core, struct job *job, const char *event, const char *text);
/* A PENDING job's times or needs have changed: into the queue or out of it. */
void job_reconsider(struct core *core, struct job *job);
void job_set_reason(struct core *core, struct job *job, const char *code, const char *text);
/* Reminders of its time limit and deadline. */
void job_set_timers(struct core *core, const struct job *job);
/* Whether a job that is stopped for this cause goes on later. NULL: no. */
bool job_cause_is_soft(const char *cause);
/* NULL after a refusal. */
struct job *job_find_live(struct core *core, const struct input *in, uint64_t id);

/* Puts a new or loaded job into memory; ids must grow. */
void job_insert(struct core *core, struct job *job);
/* Into the queue if it may start now; else its time is waited for, or the jobs that it needs. */
void job_enqueue(struct core *core, struct job *job);
void job_destroy(void *job);
bool job_state_is_final(enum job_state state);

#endif
