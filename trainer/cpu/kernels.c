#include "trainer/cpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

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

static const struct kernels *named(const char *name)
{
    for (size_t i = 0; all[i] != NULL; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    fprintf(stderr, "DS_CPU_KERNELS=%s: there are only", name);
    for (size_t i = 0; all[i] != NULL; i++) {
        fprintf(stderr, " %s", all[i]->name);
    }
    fputc('\n', stderr);
    exit(EX_USAGE);
}

const struct kernels *kernels_best(void)
{
    const char *wanted = getenv("DS_CPU_KERNELS");
    if (wanted != NULL && wanted[0] != 0) {
        const struct kernels *k = named(wanted);
        if (!k->available()) {
            fprintf(stderr, "DS_CPU_KERNELS=%s: this processor does not have it\n", wanted);
            exit(EX_USAGE);
        }
        return k;
    }
    const struct kernels *best = all[0];
    for (size_t i = 1; all[i] != NULL; i++) {
        best = all[i]->available() ? all[i] : best;
    }
    return best;
}
