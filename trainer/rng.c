#include "trainer/rng.h"

#include <math.h>

#define ROUNDS 10

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0;
        uint64_t b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint64_t rng_stream(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++) {
        h = (h ^ *p) * 0x100000001b3u;
    }
    return h;
}

/* Two 64-bit numbers a block. */
static void block(uint64_t seed, uint64_t stream, uint64_t number, uint64_t out[2])
{
    uint32_t counter[4] = {(uint32_t)number, (uint32_t)(number >> 32), (uint32_t)stream,
                           (uint32_t)(stream >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t word[4];
    rng_philox(counter, key, word);
    out[0] = (uint64_t)word[1] << 32 | word[0];
    out[1] = (uint64_t)word[3] << 32 | word[2];
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t two[2];
    block(seed, stream, index / 2, two);
    return two[index % 2];
}

void rng_normal(uint64_t seed, uint64_t stream, uint64_t first, size_t count, double std,
                float *out)
{
    const double turn = 6.283185307179586;
    for (size_t i = 0; i < count;) {
        uint64_t index = first + i;
        uint64_t two[2];
        block(seed, stream, index / 2, two);
        double u = ((double)(two[0] >> 11) + 1) * 0x1p-53; /* (0, 1]: the logarithm is finite */
        double angle = (double)(two[1] >> 11) * 0x1p-53 * turn;
        double radius = std * sqrt(-2 * log(u));
        if (index % 2 == 0) {
            out[i++] = (float)(radius * cos(angle));
            if (i == count) {
                return;
            }
        }
        out[i++] = (float)(radius * sin(angle));
    }
}
