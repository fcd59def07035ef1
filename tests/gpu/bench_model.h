/* Whole training work, by the clock. peak: the BF16 product's rate measured in the same run. */
#ifndef TESTS_GPU_BENCH_MODEL_H
#define TESTS_GPU_BENCH_MODEL_H

#include "trainer/op.h"

/* One MoE layer of V3's shape with 4 experts here, forward and backward, 4096 tokens. */
void bench_layer(const struct op_table *op, double peak);
/* Steps of a model of V3's shape with 2.0 thousand million parameters: tokens a second and MFU. */
void bench_model(const struct op_table *op, double peak);

#endif
