#include "trainer/mixture.h"

#include <assert.h>
#include <math.h>

#include "trainer/rng.h"
#include "trainer/sampler.h"

void mixture_init(struct mixture *m, uint64_t seed, const double *weights, uint32_t count)
{
    assert(count >= 1 && count <= DATA_SOURCES_MAX);
    *m = (struct mixture){.seed = seed, .count = count};
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert(isfinite(weights[i]) && weights[i] > 0);
        sum += weights[i];
        m->largest = weights[i] > weights[m->largest] ? i : m->largest;
    }
    for (uint32_t i = 0; i < count; i++) {
        m->share[i] = (uint64_t)(weights[i] / sum * 0x1p32);
    }
}

/* Sequences of the source in the blocks before this one. The largest weight is at least 1 / count
 * and a block is much longer than the list of sources, so what the others' rounding leaves it is
 * never negative. */
static uint64_t dealt(const struct mixture *m, uint32_t source, uint64_t block)
{
    if (source != m->largest) {
        return (uint64_t)((unsigned __int128)block * MIXTURE_BLOCK * m->share[source] >> 32);
    }
    uint64_t rest = block * MIXTURE_BLOCK;
    for (uint32_t i = 0; i < m->count; i++) {
        rest -= i == source ? 0 : dealt(m, i, block);
    }
    return rest;
}

uint32_t mixture_at(const struct mixture *m, uint64_t position, uint64_t *index)
{
    if (m->count == 1) {
        *index = position;
        return 0;
    }
    uint64_t block = position / MIXTURE_BLOCK;
    uint64_t key = rng_u64(m->seed, rng_stream("mixture"), block);
    uint64_t slot = sampler_permute(key, MIXTURE_BLOCK, position % MIXTURE_BLOCK);
    for (uint32_t source = 0;; source++) {
        assert(source < m->count);
        uint64_t before = dealt(m, source, block);
        uint64_t count = dealt(m, source, block + 1) - before;
        if (slot < count) {
            *index = before + slot;
            return source;
        }
        slot -= count;
    }
}

void mixture_before(const struct mixture *m, uint64_t position, uint64_t *counts)
{
    uint64_t block = position / MIXTURE_BLOCK;
    for (uint32_t i = 0; i < m->count; i++) {
        counts[i] = dealt(m, i, block);
    }
    for (uint64_t p = block * MIXTURE_BLOCK; p < position; p++) {
        uint64_t index;
        counts[mixture_at(m, p, &index)]++;
    }
}
