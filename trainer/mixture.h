/* Which source a position of the run is taken from, and which of that source's sequences it is. A
 * pure function of (seed, position).
 *
 * Positions are dealt in blocks. Of each block a source gets its weight's share to within one
 * sequence, and no sequence of error is ever carried for longer than a block; within a block the
 * order is a keyed permutation. A source's sequences are numbered 0, 1, 2, ... without a gap. */
#ifndef TRAINER_MIXTURE_H
#define TRAINER_MIXTURE_H

#include <stdint.h>

#include "proto/data_spec.h"

#define MIXTURE_BLOCK 4096

struct mixture {
    uint64_t seed;
    uint32_t count;
    uint32_t largest;                 /* the source that takes what rounding leaves */
    uint64_t share[DATA_SOURCES_MAX]; /* of 2^32, rounded down; of the largest: not used */
};

/* Weights are positive and finite; they need not add up to 1. */
void mixture_init(struct mixture *m, uint64_t seed, const double *weights, uint32_t count);
/* Source of a position; *index is the sequence of that source. */
uint32_t mixture_at(const struct mixture *m, uint64_t position, uint64_t *index);
/* Of the positions before this one, how many each source has. */
void mixture_before(const struct mixture *m, uint64_t position, uint64_t *counts);

#endif
