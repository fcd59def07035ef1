#include "daemon/sim/sim.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/hash.h"
#include "lib/mem.h"

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

void sim_after(struct sim *sim, int64_t delay_ms, sim_fn fn, uint64_t a, uint64_t b, void *payload)
{
    void *heap = sim->heap;
    mem_grow(&heap, &sim->heap_capacity, sim->heap_count + 1, sizeof *sim->heap);
    sim->heap = heap;
    size_t i = sim->heap_count++;
    struct sim_event event = {
        sim->now_ms + (delay_ms > 0 ? delay_ms : 0), sim->next_seq++, fn, a, b, payload};
    while (i > 0 && before(&event, &sim->heap[(i - 1) / 2])) {
        sim->heap[i] = sim->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    sim->heap[i] = event;
}

/* splitmix64 */
static uint64_t next(struct sim *sim)
{
    uint64_t z = sim->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_roll(struct sim *sim, uint64_t bound)
{
    return next(sim) % bound;
}

int64_t sim_between(struct sim *sim, int64_t low, int64_t high)
{
    return low + (int64_t)sim_roll(sim, (uint64_t)(high - low) + 1);
}

bool sim_chance(struct sim *sim, double probability)
{
    return (double)(next(sim) >> 11) < probability * 9007199254740992.0;
}

int64_t sim_wait(struct sim *sim, int64_t mean_ms)
{
    if (mean_ms == 0) {
        return INT64_MAX / 4;
    }
    double u = ((double)(next(sim) >> 11) + 1) / 9007199254740993.0;
    return (int64_t)(-log(u) * (double)mean_ms) + 1;
}

void sim_fail(struct sim *sim, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("dssim: seed %" PRIu64 " at %.3f s: ", sim->seed, (double)sim->now_ms / 1000);
    vprintf(fmt, ap);
    printf("\ndssim: repeat it with: dssim run --seed %" PRIu64
           " --verbose; its database is in %s\n",
           sim->seed, sim->dir);
    va_end(ap);
    fflush(stdout);
    _Exit(1);
}

void sim_trace(struct sim *sim, const char *fmt, ...)
{
    if (!sim->verbose) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    printf("%10.3f ", (double)sim->now_ms / 1000);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
}

void sim_note(struct sim *sim, uint64_t value)
{
    uint64_t words[2] = {value, (uint64_t)sim->now_ms};
    sim->hash = hash_xxh3(words, sizeof words, sim->hash);
}

void sim_origin(struct sim *sim, reply_token token, int kind, uint64_t who, session_id session)
{
    void *origins = sim->origins;
    size_t old = sim->origin_capacity;
    mem_grow(&origins, &sim->origin_capacity, token + 1, sizeof *sim->origins);
    sim->origins = origins;
    for (size_t i = old; i < sim->origin_capacity; i++) {
        sim->origins[i].kind = ORIGIN_NONE;
    }
    sim->origins[token].kind = (unsigned)kind;
    sim->origins[token].who = who;
    sim->origins[token].session = session;
}
