/* What is to happen on the virtual clock, the earliest first; of two at the same time the one that
 * was set first. */
#ifndef DAEMON_SIM_HEAP_H
#define DAEMON_SIM_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_event {
    int64_t at_ms;
    uint64_t seq;
    void (*fn)(void); /* to be cast to the world's own type of function */
    uint64_t a, b;
    void *payload; /* owned by the event until it is taken */
};
/* A zeroed one is empty. */
struct heap {
    struct heap_event *items; /* owned */
    size_t count, capacity;
    uint64_t next_seq;
};

void heap_fini(struct heap *heap); /* frees the payloads of what never happened */
void heap_add(struct heap *heap, int64_t at_ms, void (*fn)(void), uint64_t a, uint64_t b,
              void *payload);
/* INT64_MAX when there is none. */
int64_t heap_next_ms(const struct heap *heap);
/* Takes the first one out; false when there is none. */
bool heap_take(struct heap *heap, struct heap_event *event);

#endif
