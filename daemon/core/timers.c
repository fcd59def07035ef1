#include "daemon/core/timers.h"

#include <stdlib.h>

#include "lib/mem.h"

static bool before(const struct timer *a, const struct timer *b)
{
    if (a->at_ms != b->at_ms) {
        return a->at_ms < b->at_ms;
    }
    return a->kind != b->kind ? a->kind < b->kind : a->id < b->id;
}

static void swap(struct timer *a, struct timer *b)
{
    struct timer t = *a;
    *a = *b;
    *b = t;
}

void timers_fini(struct timers *timers)
{
    free(timers->heap);
    *timers = (struct timers){0};
}

void timers_set(struct timers *timers, enum timer_kind kind, uint64_t id, int64_t at_ms)
{
    void *heap = timers->heap;
    mem_grow(&heap, &timers->capacity, timers->count + 1, sizeof *timers->heap);
    timers->heap = heap;
    size_t i = timers->count++;
    timers->heap[i] = (struct timer){at_ms, kind, id};
    while (i > 0 && before(&timers->heap[i], &timers->heap[(i - 1) / 2])) {
        swap(&timers->heap[i], &timers->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

int64_t timers_next(const struct timers *timers)
{
    return timers->count == 0 ? INT64_MAX : timers->heap[0].at_ms;
}

bool timers_take(struct timers *timers, int64_t now_ms, struct timer *timer)
{
    if (timers_next(timers) > now_ms || timers->count == 0) {
        return false;
    }
    *timer = timers->heap[0];
    timers->heap[0] = timers->heap[--timers->count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < timers->count; child++) {
            if (before(&timers->heap[child], &timers->heap[least])) {
                least = child;
            }
        }
        if (least == i) {
            return true;
        }
        swap(&timers->heap[i], &timers->heap[least]);
        i = least;
    }
}
