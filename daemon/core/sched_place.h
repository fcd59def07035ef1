/* Which of the nodes that have room a gang gets: those it had before and its spares first; else as
 * few leaf switches as possible, and within a leaf the fullest nodes, so that whole ones stay free.
 * Ranks are numbered leaf by leaf, those leaves first that hold whole expert groups, so that a
 * group crosses no leaf where that can be had. */
#ifndef DAEMON_CORE_SCHED_PLACE_H
#define DAEMON_CORE_SCHED_PLACE_H

#include "daemon/core/timeline.h"

/* How large a gang can be with these nodes, in the demand's placement. */
uint32_t sched_most(const struct timeline *tl, const struct demand *d, const uint32_t *candidates,
                    uint32_t count);
/* candidates: count indices of nodes with room, count >= nodes. Picks `nodes` of them, in rank
 * order, into chosen. False when the demand's placement cannot be had with these. Uses candidates
 * as scratch. */
bool sched_choose(const struct timeline *tl, const struct demand *d, uint32_t *candidates,
                  uint32_t count, uint32_t nodes, int64_t at_ms, uint32_t *chosen);

#endif
