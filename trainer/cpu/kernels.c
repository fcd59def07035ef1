#include "trainer/cpu/kernels.h"

extern const struct kernels kernels_base;
#ifdef __x86_64__
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

static const struct kernels *const all[] = {
    &kernels_base,
#ifdef __x86_64__
    &kernels_avx2,
    &kernels_avx512,
#endif
    NULL,
};

const struct kernels *kernels_at(size_t index)
{
    return all[index];
}

const struct kernels *kernels_best(void)
{
    const struct kernels *best = all[0];
    for (size_t i = 1; all[i] != NULL; i++) {
        best = all[i]->available() ? all[i] : best;
    }
    return best;
}
