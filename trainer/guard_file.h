/* What the guard keeps on disk: its state as text, in the facts of a checkpoint, and the run's
 * decisions, one JSON line each, in guard.jsonl beside the folders of the run's attempts. The file
 * outlives an attempt; a checkpoint knows how many of the decisions it has taken over. */
#ifndef TRAINER_GUARD_FILE_H
#define TRAINER_GUARD_FILE_H

#include "trainer/guard.h"

/* {"loss": [...], ...}. The caller frees. */
char *guard_state_encode(const struct guard_state *state);
/* ERR_CORRUPT with name in the text. */
int guard_state_parse(struct guard_state *state, const char *json, const char *name,
                      struct err *err);

/* root: the folder with the attempts' folders. A file that is missing is an empty history; a last
 * line that was cut is no line. ERR_CORRUPT. */
int guard_history_read(struct guard_history *history, const char *root, struct err *err);
/* Durably. */
int guard_history_add(const char *root, const struct guard_decision *decision, struct err *err);
void guard_history_fini(struct guard_history *history); /* a zeroed one is fine */

/* The step that a rollback goes to: of the newest checkpoint at or before `wanted` on the way that
 * the run has come, else of the oldest one there, else 0. */
uint64_t guard_back_to(const char *root, const struct guard_history *history, uint64_t wanted);
/* Where to resume: `resume` (a checkpoint in root) unless a decision gave it up; then the newest
 * one that is whole and was not. Sets *chosen, which the caller frees; NULL: from the beginning. */
int guard_choose(const char *root, const struct guard_history *history, const char *resume,
                 char **chosen, struct err *err);

#endif
