#include "trainer/fim.h"

#include <assert.h>

#include "trainer/rng.h"

/* Uniform over 0 ... n - 1 to within n / 2^64. */
static uint64_t below(uint64_t random, uint64_t n)
{
    return (uint64_t)((unsigned __int128)random * n >> 64);
}

struct fim_cut fim_cut(const struct fim_spec *fim, uint64_t seed, uint64_t document,
                       uint64_t tokens)
{
    uint64_t stream = rng_stream("fim");
    double roll = (double)(rng_u64(seed, stream, 3 * document) >> 11) * 0x1p-53;
    if (roll >= fim->rate || tokens < 2) {
        return (struct fim_cut){0};
    }
    uint64_t body = tokens - 1;
    uint64_t a = below(rng_u64(seed, stream, 3 * document + 1), body + 1);
    uint64_t b = below(rng_u64(seed, stream, 3 * document + 2), body + 1);
    return (struct fim_cut){.told = 1, .body = body, .a = a < b ? a : b, .b = a < b ? b : a};
}

struct fim_stretch fim_stretch(const struct fim_spec *fim, const struct fim_cut *cut,
                               uint64_t tokens, uint64_t offset)
{
    assert(offset < tokens + (cut->told ? FIM_TOKENS : 0));
    if (!cut->told) {
        return (struct fim_stretch){offset, tokens - offset, -1};
    }
    const struct fim_stretch parts[] = {
        {0, 1, (int32_t)fim->begin}, {0, cut->a, -1},
        {0, 1, (int32_t)fim->hole},  {cut->b, cut->body - cut->b, -1},
        {0, 1, (int32_t)fim->end},   {cut->a, cut->b - cut->a, -1},
        {cut->body, 1, -1},
    };
    const struct fim_stretch *part = parts;
    while (offset >= part->count) {
        offset -= part++->count;
    }
    return (struct fim_stretch){part->first + offset, part->count - offset, part->token};
}
