/* Ranks find out together whether a step that each does on its own went well everywhere, so that
 * all of them leave with the same status instead of one with the cause and the rest with
 * "collective aborted". */
#ifndef TRAINER_AGREE_H
#define TRAINER_AGREE_H

#include "lib/err.h"
#include "trainer/comm.h"

/* rc: this rank's outcome; *err already holds its text. Returns rc when it is an error, else the
 * first failing rank's code with a text that names that rank, else 0. Collective. */
int agree(struct comm *c, int rc, const char *what, struct err *err);

/* Rank 0's text, on all ranks; NULL is one, too. The caller frees *text. Collective. */
int agree_text(struct comm *c, char **text, struct err *err);

#endif
