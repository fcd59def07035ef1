/* kernels_base.c for x86-64-v3 (AVX2); compiled with the flags of files.mk. */
#define KERNELS           kernels_avx2
#define KERNELS_NAME      "avx2"
#define KERNELS_AVAILABLE __builtin_cpu_supports("avx2")
#include "trainer/cpu/kernels_base.c"
