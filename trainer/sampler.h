/* Which piece of the corpus a training position shows. A pure function of (seed, position): there
 * is no state to save, and any number of ranks agrees on every global batch.
 *
 * The corpus is cut into windows of length + 1 tokens that share one token, so that every token but
 * the first is a target exactly once. An epoch visits all windows once, in an order that differs
 * from epoch to epoch: a keyed permutation (Feistel network with cycle walking), computed from the
 * position, so that nothing of the corpus' size is held in memory. */
#ifndef TRAINER_SAMPLER_H
#define TRAINER_SAMPLER_H

#include <stdint.h>

struct sampler {
    uint64_t seed;
    uint64_t windows;         /* in an epoch; at least 1 */
    uint32_t sequence_length; /* tokens of input */
};

/* Windows in a corpus of that many tokens; 0 when it is too short for one. */
uint64_t sampler_windows(uint64_t tokens, uint32_t sequence_length);
/* Window shown at a position: position p of the run is sequence p % global_batch of step p /
 * global_batch + 1. */
uint64_t sampler_window(const struct sampler *s, uint64_t position);
/* First token of a window. */
static inline uint64_t sampler_token(const struct sampler *s, uint64_t window)
{
    return window * s->sequence_length;
}
/* The i-th of n validation windows: the same ones every time, spread evenly. */
uint64_t sampler_valid_window(uint64_t windows, uint64_t i, uint64_t n);

/* Permutation of 0..n-1 under a key. n >= 1, i < n. */
uint64_t sampler_permute(uint64_t key, uint64_t n, uint64_t i);

#endif
