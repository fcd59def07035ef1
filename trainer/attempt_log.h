/* attempts.jsonl in the folder of a run that a person started: when each start began, how it ended.
 * One line when it begins and one when it ends, appended; a start that was killed has no second
 * one. */
#ifndef TRAINER_ATTEMPT_LOG_H
#define TRAINER_ATTEMPT_LOG_H

#include <jansson.h>
#include <stdint.h>

#include "lib/err.h"

/* The epoch of the next start: one more than the greatest in the log. */
uint64_t attempt_log_next(const char *run_dir);
int attempt_log_begin(const char *run_dir, uint64_t epoch, uint32_t ranks, const char *resume,
                      struct err *err);
/* text: how it ended, for people. */
int attempt_log_end(const char *run_dir, uint64_t epoch, int status, const char *text,
                    struct err *err);
/* A list of {"epoch", "nodes", "ranks", "started_at", "resume"; "ended_at", "status", "cause"}, in
 * the order of their starts. New reference. */
int attempt_log_read(const char *run_dir, json_t **attempts, struct err *err);

#endif
