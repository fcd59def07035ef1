/* The data cursor: how far into its data a run is, as a value.
 *
 * A run shows positions 0, 1, 2, ... of an order that the job file decides (mixture.h, corpus.h).
 * The skip list names positions that are never shown: batches that a person, or the guard against
 * loss spikes, took out. Whoever holds the cursor knows what every later step will show. */
#ifndef TRAINER_CURSOR_H
#define TRAINER_CURSOR_H

#include <stddef.h>
#include <stdint.h>

struct skip {
    uint64_t first, count; /* positions; count >= 1, first + count does not overflow */
};
struct cursor {
    uint64_t position;  /* all before it were shown or skipped */
    struct skip *skips; /* owned; ascending, neither overlapping nor touching */
    size_t skip_count, skip_capacity;
};

void cursor_fini(struct cursor *c); /* a zeroed one is fine: it stands at the beginning */
/* Never show [first, first + count). What lies before the cursor is only remembered. */
void cursor_skip(struct cursor *c, uint64_t first, uint64_t count);
/* Position of the n-th sequence from here on, counted from 0, that is not skipped. */
uint64_t cursor_nth(const struct cursor *c, uint64_t n);
/* Goes on past the next n sequences that are not skipped. */
void cursor_advance(struct cursor *c, uint64_t n);
/* How many of [first, first + count) the skip list takes out. */
uint64_t cursor_skipped(const struct cursor *c, uint64_t first, uint64_t count);

#endif
