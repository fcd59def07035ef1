/* Few tokens: the ranks of all neighbours in an array, of which the least is looked for each time.
 * Many: a linked list of the tokens and a heap of (rank, place), in which entries that a merge
 * nearby has made wrong stay until they come up and are then dropped. */
#include "trainer/tokenizer_merges.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define FEW  48
#define NONE UINT32_MAX

void merges_init(struct merges *m, size_t count)
{
    m->bits = 4;
    while (((size_t)1 << m->bits) < 2 * count + 1) {
        m->bits++;
    }
    m->slots = mem_alloc_array((size_t)1 << m->bits, sizeof *m->slots);
    for (size_t i = 0; i < (size_t)1 << m->bits; i++) {
        m->slots[i].rank = MERGE_NONE;
    }
}

void merges_fini(struct merges *m)
{
    free(m->slots);
    *m = (struct merges){0};
}

void merges_set(struct merges *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t into)
{
    struct merge *slot = &m->slots[merges_get(m, left, right) - m->slots];
    *slot = (struct merge){.pair = (uint64_t)left << 32 | right, .rank = rank, .into = into};
}

/* ---- few */

static size_t run_few(const struct merges *m, uint32_t *ids, size_t count)
{
    uint32_t ranks[FEW];
    uint32_t into[FEW];
    for (size_t i = 0; i + 1 < count; i++) {
        const struct merge *merge = merges_get(m, ids[i], ids[i + 1]);
        ranks[i] = merge->rank;
        into[i] = merge->into;
    }
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == MERGE_NONE) {
            break;
        }
        ids[best] = into[best];
        count--;
        size_t behind = count - best - 1; /* tokens after the merged one */
        memmove(ids + best + 1, ids + best + 2, behind * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, behind * sizeof *ranks);
        memmove(into + best, into + best + 1, behind * sizeof *into);
        size_t first = best > 0 ? best - 1 : 0;
        for (size_t i = first; i <= best && i + 1 < count; i++) {
            const struct merge *merge = merges_get(m, ids[i], ids[i + 1]);
            ranks[i] = merge->rank;
            into[i] = merge->into;
        }
    }
    return count;
}

/* ---- many */

struct node {
    uint32_t id, before, after; /* NONE at the ends */
    uint32_t rank, into;        /* of the merge with the one after */
};
struct merge_scratch {
    struct node *nodes; /* owned */
    uint64_t *heap;     /* owned; rank << 32 | place, the least on top */
    size_t heap_count;
    size_t node_capacity, heap_capacity;
};

struct merge_scratch *merge_scratch_create(void)
{
    return mem_alloc(sizeof(struct merge_scratch));
}

void merge_scratch_destroy(struct merge_scratch *s)
{
    if (s != NULL) {
        free(s->nodes);
        free(s->heap);
        free(s);
    }
}

static void heap_sink(uint64_t *heap, size_t count, size_t at)
{
    uint64_t entry = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        child += child + 1 < count && heap[child + 1] < heap[child];
        if (heap[child] >= entry) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

static void heap_push(struct merge_scratch *s, uint64_t entry)
{
    mem_grow((void **)&s->heap, &s->heap_capacity, s->heap_count + 1, sizeof *s->heap);
    size_t at = s->heap_count++;
    while (at > 0 && s->heap[(at - 1) / 2] > entry) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = entry;
}

static uint64_t heap_pop(struct merge_scratch *s)
{
    uint64_t top = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    if (s->heap_count > 0) {
        heap_sink(s->heap, s->heap_count, 0);
    }
    return top;
}

static void find_merge(const struct merges *m, struct node *nodes, uint32_t place)
{
    struct node *n = &nodes[place];
    n->rank = MERGE_NONE;
    if (n->after != NONE) {
        const struct merge *merge = merges_get(m, n->id, nodes[n->after].id);
        n->rank = merge->rank;
        n->into = merge->into;
    }
}

static void fill(const struct merges *m, struct merge_scratch *s, const uint32_t *ids,
                 uint32_t count)
{
    mem_grow((void **)&s->nodes, &s->node_capacity, count, sizeof *s->nodes);
    mem_grow((void **)&s->heap, &s->heap_capacity, count, sizeof *s->heap);
    for (uint32_t i = 0; i < count; i++) {
        s->nodes[i] = (struct node){
            .id = ids[i], .before = i > 0 ? i - 1 : NONE, .after = i + 1 < count ? i + 1 : NONE};
    }
    s->heap_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        find_merge(m, s->nodes, i);
        if (s->nodes[i].rank != MERGE_NONE) {
            s->heap[s->heap_count++] = (uint64_t)s->nodes[i].rank << 32 | i;
        }
    }
    for (size_t i = s->heap_count / 2; i-- > 0;) {
        heap_sink(s->heap, s->heap_count, i);
    }
}

static void merge_with_next(const struct merges *m, struct merge_scratch *s, uint32_t place)
{
    struct node *n = &s->nodes[place];
    struct node *gone = &s->nodes[n->after];
    n->id = n->into;
    n->after = gone->after;
    gone->rank = MERGE_NONE;
    if (n->after != NONE) {
        s->nodes[n->after].before = place;
    }
    uint32_t changed[2] = {place, n->before};
    for (size_t i = 0; i < 2; i++) {
        if (changed[i] != NONE) {
            find_merge(m, s->nodes, changed[i]);
            uint32_t rank = s->nodes[changed[i]].rank;
            if (rank != MERGE_NONE) {
                heap_push(s, (uint64_t)rank << 32 | changed[i]);
            }
        }
    }
}

static size_t run_many(const struct merges *m, struct merge_scratch *s, uint32_t *ids, size_t count)
{
    fill(m, s, ids, (uint32_t)count);
    while (s->heap_count > 0) {
        uint64_t top = heap_pop(s);
        uint32_t place = (uint32_t)top;
        if (s->nodes[place].rank == (uint32_t)(top >> 32)) {
            merge_with_next(m, s, place);
        }
    }
    size_t left = 0;
    for (uint32_t at = 0; at != NONE; at = s->nodes[at].after) {
        ids[left++] = s->nodes[at].id;
    }
    return left;
}

size_t merges_run(const struct merges *m, struct merge_scratch *s, uint32_t *ids, size_t count)
{
    return count <= FEW ? run_few(m, ids, count) : run_many(m, s, ids, count);
}
