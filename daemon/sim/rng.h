/* Chance from a seed: splitmix64. The state is one number, so a run is repeated by repeating it. */
#ifndef DAEMON_SIM_RNG_H
#define DAEMON_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

uint64_t rng_next(uint64_t *state);
uint64_t rng_roll(uint64_t *state, uint64_t bound);              /* 0..bound-1 */
int64_t rng_between(uint64_t *state, int64_t low, int64_t high); /* both included */
bool rng_chance(uint64_t *state, double probability);
double rng_unit(uint64_t *state); /* above 0, at most 1 */
/* An exponential waiting time, at least 1; a quarter of for ever when the mean is 0. */
int64_t rng_wait(uint64_t *state, double mean_ms);

#endif
