/* OpenBLAS is loaded by hand because it reads its environment as it is loaded, and the environment
 * of whoever started the rank must not decide the bits of a run: which kernels are used
 * (OPENBLAS_CORETYPE), their blocking (OPENBLAS_L2_SIZE), the number of threads. The library picks
 * kernels by the processor, except where it is known to pick badly. To have the same bits on
 * different processors, name one for all in DS_BLAS_CORETYPE (a value of OPENBLAS_CORETYPE, such as
 * Haswell), in the job's `env`. */
#include "trainer/cpu/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#define LIBRARY "libopenblas.so.0"

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };

typedef void sgemm_fn(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);

static sgemm_fn *sgemm;

/* Kernels to use although the library would pick others, or NULL. Up to 0.3.26 it gives an AMD
 * processor with AVX-512 (Zen 4, Zen 5) those for AVX2, which are half as fast there. */
static const char *better_kernels(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return "SkylakeX";
    }
#endif
    return NULL;
}

static void choose_kernels(void)
{
    const char *wanted = getenv("DS_BLAS_CORETYPE");
    wanted = wanted != NULL ? wanted : better_kernels();
    if (wanted != NULL) {
        setenv("OPENBLAS_CORETYPE", wanted, 1);
    } else {
        unsetenv("OPENBLAS_CORETYPE");
    }
    unsetenv("OPENBLAS_L2_SIZE");
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
}

void blas_load(void)
{
    if (sgemm != NULL) {
        return;
    }
    choose_kernels();
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library == NULL ? NULL : dlsym(library, "cblas_sgemm");
    if (symbol == NULL) {
        fprintf(stderr,
                "cannot load " LIBRARY ": %s (install OpenBLAS: apt install libopenblas0)\n",
                dlerror());
        exit(EX_UNAVAILABLE);
    }
    *(void **)&sgemm = symbol;
}

void blas_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
               size_t ldc)
{
    sgemm(ROW_MAJOR, transpose_a ? TRANSPOSE : NO_TRANSPOSE, transpose_b ? TRANSPOSE : NO_TRANSPOSE,
          (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}
