#include "daemon/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/sim/rng.h"
#include "lib/file.h"
#include "lib/hash.h"
#include "lib/mem.h"

void sim_after(struct sim *sim, int64_t delay_ms, sim_fn fn, uint64_t a, uint64_t b, void *payload)
{
    heap_add(&sim->heap, sim->now_ms + (delay_ms > 0 ? delay_ms : 0), (void (*)(void))fn, a, b,
             payload);
}

uint64_t sim_roll(struct sim *sim, uint64_t bound)
{
    return rng_roll(&sim->rng, bound);
}

int64_t sim_between(struct sim *sim, int64_t low, int64_t high)
{
    return rng_between(&sim->rng, low, high);
}

bool sim_chance(struct sim *sim, double probability)
{
    return rng_chance(&sim->rng, probability);
}

int64_t sim_wait(struct sim *sim, int64_t mean_ms)
{
    return rng_wait(&sim->rng, (double)mean_ms);
}

void sim_fail(struct sim *sim, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("dssim: seed %" PRIu64 " at %.3f s: ", sim->seed, (double)sim->now_ms / 1000);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\ndssim: repeat it with: dssim run --seed %" PRIu64 " --verbose", sim->seed);
    char path[80];
    snprintf(path, sizeof path, "%s/ds.db", sim->dir);
    if (disk_keep(sim, path)) {
        printf("; its tables are in %s", path);
    } else {
        file_remove_tree(sim->dir, NULL);
    }
    printf("\n");
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

void sim_count(struct sim *sim, enum count what)
{
    sim->counts.n[what]++;
}

void sim_config(struct core_config *config)
{
    core_config_default(config);
    config->user_fault_ms = 5000;
    config->policy.priority.half_life_ms = 1200000;
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
