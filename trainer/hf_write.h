/* The tensors of an export: each shard of the checkpoint is read once from front to back, hashed on
 * the way, and what it holds is converted and put where the plan says. So memory is that of a band
 * of rows, and not a byte is exported whose digest was not checked, by the time this returns. */
#ifndef TRAINER_HF_WRITE_H
#define TRAINER_HF_WRITE_H

#include <stdbool.h>

#include "lib/err.h"
#include "proto/manifest.h"
#include "trainer/hf_plan.h"
#include "trainer/out_folder.h"
#include "trainer/tensor_list.h"

/* Into out->tmp, durably. ERR_CORRUPT names the shard, and the tensor if it is about one: another
 * size or digest than the manifest's, a tensor that is missing, twice there, of another shape or
 * dtype than the model's, unknown, or not finite. */
/* ema: the weights' moving average in their place, gathered from wherever its parts are;
 * ERR_CONFIG when the checkpoint has none. */
int hf_write_tensors(const struct manifest *manifest, const char *ckpt_dir, bool ema,
                     const struct tensor_list *tensors, const struct hf_plan *plan,
                     const struct out_folder *out, struct err *err);

#endif
