/* kernels_base.c for x86-64-v4 (AVX-512 F, BW, CD, DQ, VL); compiled with the flags of files.mk. */
#define KERNELS      kernels_avx512
#define KERNELS_NAME "avx512"
#define KERNELS_AVAILABLE                                                                          \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                    \
     __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&                   \
     __builtin_cpu_supports("avx512vl"))
#include "trainer/cpu/kernels_base.c"
