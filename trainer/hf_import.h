/* A Hugging Face folder of a DeepSeek-V3-shaped model -> a checkpoint of weights alone, from which
 * a run starts: at step 0, with fresh optimiser moments. Tensor by tensor, and a large one by bands
 * of rows, so that memory does not grow with the model. */
#ifndef TRAINER_HF_IMPORT_H
#define TRAINER_HF_IMPORT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct import_options {
    const char *hf_dir, *ckpt_dir; /* borrowed */
    int64_t mtp_layers;            /* -1: as config.json says */
    uint64_t shard_bytes;
    uint64_t seed;   /* of weights that the folder lacks: those of MTP layers may be missing */
    double init_std; /* of the same */
};

struct import_result {
    uint64_t tensors, bytes;
    uint32_t shards;
};

/* Reads all of a folder as an import would, and writes nothing. */
int hf_check(const char *hf_dir, size_t *tensors, struct err *err);
int hf_import(const struct import_options *options, struct import_result *result, struct err *err);

#endif
