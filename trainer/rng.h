/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A number is a pure function of (seed, stream, index), so
 * any rank can compute any part. */
#ifndef TRAINER_RNG_H
#define TRAINER_RNG_H

#include <stddef.h>
#include <stdint.h>

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* A stream number from a name: FNV-1a, 64 bit. */
uint64_t rng_stream(const char *name);

/* Number `index` of the stream, uniform over all 64-bit values. */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
/* Elements [first, first + count) of the stream, normal(0, std) by Box and Muller's transform in
 * double. */
void rng_normal(uint64_t seed, uint64_t stream, uint64_t first, size_t count, double std,
                float *out);

#endif
