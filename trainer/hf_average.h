/* The weights' moving average in a checkpoint, for an export. Its parts lie in any shard and order,
 * so it is read by place and not from front to back as the weights are. */
#ifndef TRAINER_HF_AVERAGE_H
#define TRAINER_HF_AVERAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/manifest.h"
#include "trainer/reshard.h"
#include "trainer/safetensors.h"

struct hf_average {
    struct safetensors *file; /* owned */
    uint32_t files;
    struct reshard_map map;
};

/* Checks every digest. ERR_CORRUPT; ERR_CONFIG when the checkpoint has no average. The caller ends
 * with hf_average_close in any case. */
int hf_average_open(struct hf_average *a, const struct manifest *manifest, const char *dir,
                    struct err *err);
void hf_average_close(struct hf_average *a);
/* Elements [first, first + count) of the tensor's average, or plain of the tensor itself. */
int hf_average_read(const struct hf_average *a, const char *tensor, bool plain, uint64_t first,
                    size_t count, float *out, struct err *err);

#endif
