#include "trainer/choose.h"

#include <math.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/rng.h"

struct candidate {
    double share;
    size_t id;
};

size_t choose_likeliest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static int likelier_first(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (x->share != y->share) {
        return x->share > y->share ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

int32_t choose_token(const struct chooser *c, float *logits, size_t n, uint64_t index)
{
    size_t best = choose_likeliest(logits, n);
    if (c->temperature == 0) {
        return (int32_t)best;
    }
    struct candidate *all = mem_alloc_array(n, sizeof *all);
    double sum = 0;
    double kept = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        double share = exp(((double)logits[i] - (double)logits[best]) / c->temperature);
        all[i] = (struct candidate){share, i};
        sum += share;
    }
    qsort(all, n, sizeof *all, likelier_first);
    do {
        kept += all[count++].share;
    } while (count < n && kept < c->top_p * sum);
    double uniform = (double)(rng_u64(c->seed, rng_stream("generate"), index) >> 11) * 0x1p-53;
    double left = uniform * kept;
    size_t chosen = 0;
    while (chosen + 1 < count && left >= all[chosen].share) {
        left -= all[chosen++].share;
    }
    int32_t token = (int32_t)all[chosen].id;
    free(all);
    return token;
}
