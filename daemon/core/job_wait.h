/* What a job waits for besides a place: a time, other jobs. And how ended jobs ended, which is what
 * those that depend on them ask.
 *
 * A need is met, not yet met, or can never be met; a job with one of the last kind is held, and its
 * release means that it runs all the same. The first job of an array stands for all of it. */
#ifndef DAEMON_CORE_JOB_WAIT_H
#define DAEMON_CORE_JOB_WAIT_H

#include "daemon/core/state.h"

/* A job has come into memory: its array, and what it needs, from its row. */
void job_wait_bind(struct core *core, struct job *job);
/* After all rows were loaded: those it needs are known now. */
void job_wait_load_done(struct core *core, struct job *job);
/* It has an attempt for the first time; it has ended and is about to leave memory. */
void job_wait_started(struct core *core, struct job *job);
void job_wait_ended(struct core *core, struct job *job, enum job_outcome outcome);
/* Drops what is met; says what can never be met in text. False when there is such a thing. */
bool job_wait_review(struct core *core, struct job *job, char *text, size_t text_bytes);
/* The same for a job that is in no list and has no row to write. */
bool job_wait_preview(const struct core *core, struct job *job, char *text, size_t text_bytes);
/* Drops what can never be met. */
void job_wait_waive(struct core *core, struct job *job);
/* One sentence about the first thing it needs. */
void job_wait_text(const struct core *core, const struct job *job, char *text, size_t text_bytes);
/* What the job file asks for. */
void job_wait_add(struct core *core, struct job *job, const struct dependency *list, size_t count);
/* Adds to job's needs that earlier live jobs of its name and user have ended. */
void job_wait_singleton(struct core *core, struct job *job);

/* Whether a job with this id was ever submitted. */
bool job_wait_is_known(const struct core *core, uint64_t id);
enum job_outcome job_outcome(const struct core *core, uint64_t id);
void job_outcome_set(struct core *core, uint64_t id, enum job_outcome outcome, uint32_t array_size);
void job_wait_fini(struct core *core);

#endif
