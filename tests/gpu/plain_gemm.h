/* Operands of trainer/cuda/gemm.h as numbers, in host memory. */
#ifndef TESTS_GPU_PLAIN_GEMM_H
#define TESTS_GPU_PLAIN_GEMM_H

#include "trainer/cuda/gemm.h"

/* Element (row, l) of an operand of `rows` rows, l counting along the sum. */
float gemm_element(enum gemm_type type, const struct gemm_operand *o, size_t batch, size_t rows,
                   size_t row, size_t l);

#endif
