/* OpenBLAS is loaded by hand because it reads its environment as it is loaded, and two settings
 * must be there by then: no threads of its own, and AVX-512 kernels on AMD processors, where
 * OpenBLAS 0.3.21 falls back to the AVX2 ones at about half the speed. */
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

static void choose_kernels(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 0);
    }
#endif
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
