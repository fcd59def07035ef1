/* How long answers took: kept all, told as percentiles. */
#ifndef TESTS_BENCH_LATENCY_H
#define TESTS_BENCH_LATENCY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"

struct latency {
    int64_t *ns; /* owned */
    size_t count, capacity;
};

static inline void latency_add(struct latency *l, int64_t ns)
{
    void *all = l->ns;
    mem_grow(&all, &l->capacity, l->count + 1, sizeof *l->ns);
    l->ns = all;
    l->ns[l->count++] = ns;
}

static inline void latency_fini(struct latency *l)
{
    free(l->ns);
    *l = (struct latency){0};
}

static inline int latency_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* As one line of JSON, in ms. */
static inline void latency_print(struct latency *l)
{
    qsort(l->ns, l->count, sizeof *l->ns, latency_compare);
    static const double parts[] = {0.5, 0.99, 1};
    double ms[3] = {0};
    for (size_t i = 0; i < 3 && l->count > 0; i++) {
        ms[i] = (double)l->ns[(size_t)((double)(l->count - 1) * parts[i])] / 1e6;
    }
    printf("{\"count\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n", l->count,
           ms[0], ms[1], ms[2]);
}

#endif
