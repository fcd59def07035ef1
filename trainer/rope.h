/* Rotary position embedding (Su et al. 2021) with YaRN context extension (Peng et al. 2023), in the
 * numbers of DeepSeek-V3. Pure. */
#ifndef TRAINER_ROPE_H
#define TRAINER_ROPE_H

#include <stddef.h>

#include "proto/model_config.h"

/* table[positions][dim / 2][2]: cosine and sine, times the attention factor of YaRN, dim =
 * qk_rope_head_dim. Frequencies and angles are FP32 as in the published implementations, the cosine
 * of an angle is exact to FP32. */
void rope_table(const struct model_config *c, size_t positions, float *table);

/* What q . k is multiplied by: 1 / sqrt(qk head dim), with YaRN's temperature squared where
 * mscale_all_dim is set. */
double rope_softmax_scale(const struct model_config *c);

#endif
