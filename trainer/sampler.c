#include "trainer/sampler.h"

#include <assert.h>

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
 */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#define ROUNDS 6

uint64_t sampler_permute(uint64_t key, uint64_t n, uint64_t i)
{
    assert(n >= 1 && i < n);
    /* Halves of `bits` each: the domain 4^bits is below 4 n, so a walk leaves it after few turns.
     */
    unsigned bits = 1;
    while (bits < 32 && ((uint64_t)1 << (2 * bits)) < n) {
        bits++;
    }
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    do {
        uint64_t left = i >> bits;
        uint64_t right = i & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ (mix(key ^ mix((round << 32) ^ right)) & mask);
            left = right;
            right = next;
        }
        i = (left << bits) | right;
    } while (i >= n);
    return i;
}

uint64_t sampler_windows(uint64_t tokens, uint32_t sequence_length)
{
    return tokens == 0 ? 0 : (tokens - 1) / sequence_length;
}

uint64_t sampler_window(const struct sampler *s, uint64_t position)
{
    uint64_t epoch = position / s->windows;
    return sampler_permute(mix(s->seed) ^ mix(~epoch), s->windows, position % s->windows);
}

uint64_t sampler_valid_window(uint64_t windows, uint64_t i, uint64_t n)
{
    assert(windows >= 1 && i < n);
    return n > windows ? i % windows : (uint64_t)((unsigned __int128)i * windows / n);
}
