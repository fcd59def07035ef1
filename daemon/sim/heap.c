#include "daemon/sim/heap.h"

#include <stdlib.h>

#include "lib/mem.h"

static bool before(const struct heap_event *a, const struct heap_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

void heap_fini(struct heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        free(heap->items[i].payload);
    }
    free(heap->items);
    *heap = (struct heap){0};
}

void heap_add(struct heap *heap, int64_t at_ms, void (*fn)(void), uint64_t a, uint64_t b,
              void *payload)
{
    void *items = heap->items;
    mem_grow(&items, &heap->capacity, heap->count + 1, sizeof *heap->items);
    heap->items = items;
    struct heap_event event = {at_ms, heap->next_seq++, fn, a, b, payload};
    size_t i = heap->count++;
    while (i > 0 && before(&event, &heap->items[(i - 1) / 2])) {
        heap->items[i] = heap->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->items[i] = event;
}

int64_t heap_next_ms(const struct heap *heap)
{
    return heap->count > 0 ? heap->items[0].at_ms : INT64_MAX;
}

bool heap_take(struct heap *heap, struct heap_event *event)
{
    if (heap->count == 0) {
        return false;
    }
    *event = heap->items[0];
    struct heap_event last = heap->items[--heap->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < heap->count; i = child) {
        if (child + 1 < heap->count && before(&heap->items[child + 1], &heap->items[child])) {
            child++;
        }
        if (before(&last, &heap->items[child])) {
            break;
        }
        heap->items[i] = heap->items[child];
    }
    heap->items[i] = last;
    return true;
}
