/* A thread that does one thing at a time beside its owner: a collective while the owner computes.
 * What is done is the same as without it, and in the same order, so results are the same to the
 * bit. */
#ifndef TRAINER_OVERLAP_H
#define TRAINER_OVERLAP_H

#include <stdbool.h>

#include "lib/err.h"

struct overlap;

/* DS_OVERLAP=0 in the environment: no thread, things are done as they are started. */
struct overlap *overlap_create(void);
/* Waits for what is under way. */
void overlap_destroy(struct overlap *o);
bool overlap_is_threaded(const struct overlap *o);

/* Begins fn(arg). What was begun before was waited for; arg lives until this is. */
typedef int overlap_fn(void *arg, struct err *err);
void overlap_start(struct overlap *o, overlap_fn *fn, void *arg);
/* Until it is done; what it returned. 0 when nothing was begun. */
int overlap_wait(struct overlap *o, struct err *err);

#endif
