/* A list of ranks: "0", "0,2-3", "all". */
#ifndef CTL_RANKS_H
#define CTL_RANKS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

/* Each once, ascending. world: how many ranks there are; one that is not there is ERR_NOT_FOUND.
 * *ranks is the caller's to free. */
int ranks_parse(const char *text, uint32_t world, uint32_t **ranks, size_t *count, struct err *err);

#endif
