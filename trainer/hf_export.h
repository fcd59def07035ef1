/* A checkpoint -> a Hugging Face folder that transformers loads, laid out as DeepSeek-V3's release:
 * sharded safetensors under the published names, config.json, generation_config.json, tokenizer
 * files, and a model card with the run's facts. */
#ifndef TRAINER_HF_EXPORT_H
#define TRAINER_HF_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/hf_plan.h"

struct export_options { /* all borrowed */
    const char *ckpt_dir, *hf_dir;
    enum export_dtype dtype;
    uint64_t shard_bytes;
    bool ema;              /* the weights' moving average */
    const char *config;    /* config.json of a checkpoint that does not hold its own; or NULL */
    const char *tokenizer; /* tokenizer.json or a folder with one, "bytes", "none"; NULL: the run's
                            */
    const char *facts;     /* JSON of `dsctl job show`, for the card; or NULL */
    const char *metrics;   /* metrics.jsonl, for the card; NULL: the run's own when it is there */
};

struct export_result {
    uint64_t tensors, bytes;
    uint32_t files;
};

int hf_export(const struct export_options *options, struct export_result *result, struct err *err);

#endif
