/* The merges of byte-pair encoding: which two tokens merge into which, and when. */
#ifndef TRAINER_TOKENIZER_MERGES_H
#define TRAINER_TOKENIZER_MERGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERGE_NONE UINT32_MAX /* a rank: the two do not merge */

struct merge {
    uint64_t pair;
    uint32_t rank, into;
};
struct merges {
    struct merge *slots; /* owned; rank MERGE_NONE is empty */
    unsigned bits;       /* there are 2^bits */
};

void merges_init(struct merges *m, size_t count); /* room for that many */
void merges_fini(struct merges *m);
/* A pair that is there already gets the new rank. */
void merges_set(struct merges *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t into);

static inline size_t merges_slot(const struct merges *m, uint64_t pair)
{
    return (size_t)((pair * 0x9e3779b97f4a7c15u) >> (64 - m->bits));
}

/* The merge of two tokens; its rank is MERGE_NONE when there is none. */
static inline const struct merge *merges_get(const struct merges *m, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right;
    size_t last = ((size_t)1 << m->bits) - 1;
    size_t slot = merges_slot(m, pair);
    while (m->slots[slot].rank != MERGE_NONE && m->slots[slot].pair != pair) {
        slot = (slot + 1) & last;
    }
    return &m->slots[slot];
}

struct merge_scratch; /* one thread's room to work */
struct merge_scratch *merge_scratch_create(void);
void merge_scratch_destroy(struct merge_scratch *s);
/* Merges in place what merges; returns how many are left. count < 2^31. */
size_t merges_run(const struct merges *m, struct merge_scratch *s, uint32_t *ids, size_t count);

#endif
