#include "daemon/sim/rng.h"

#include <math.h>

uint64_t rng_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rng_roll(uint64_t *state, uint64_t bound)
{
    return rng_next(state) % bound;
}

int64_t rng_between(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)rng_roll(state, (uint64_t)(high - low) + 1);
}

bool rng_chance(uint64_t *state, double probability)
{
    return (double)(rng_next(state) >> 11) < probability * 9007199254740992.0;
}

double rng_unit(uint64_t *state)
{
    return ((double)(rng_next(state) >> 11) + 1) / 9007199254740993.0;
}

int64_t rng_wait(uint64_t *state, double mean_ms)
{
    if (mean_ms <= 0) {
        return INT64_MAX / 4;
    }
    double wait_ms = -log(rng_unit(state)) * mean_ms;
    return wait_ms < 1e17 ? (int64_t)wait_ms + 1 : INT64_MAX / 4;
}
