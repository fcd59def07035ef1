/* The accelerators of this node. */
#ifndef WORKER_INVENTORY_H
#define WORKER_INVENTORY_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "worker/config.h"
#include "worker/gpu_facts.h"

#define INVENTORY_HEALTH_BYTES 256

struct inventory_gpu {
    uint32_t index; /* as in CUDA_VISIBLE_DEVICES */
    char uuid[96];
    char model[96];
    uint64_t memory_bytes;               /* 0: not known */
    char health[INVENTORY_HEALTH_BYTES]; /* gpu_judge's, or why it cannot be asked */
    enum gpu_verdict verdict;
    char bus[32]; /* "" when not known */
};
struct inventory {
    struct inventory_gpu *gpus; /* owned */
    size_t count, capacity;
    size_t devices; /* the first ones: the driver's; the others are declared */
};

/* Declared ones, or what NVML finds. Without a driver the node has none, and *note says why in one
 * line ("" when there is nothing to say). */
void inventory_init(struct inventory *inv, const struct config *config, struct err *note);
void inventory_fini(struct inventory *inv);
struct inventory_gpu *inventory_add(struct inventory *inv);

#endif
