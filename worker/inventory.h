/* The accelerators of this node. */
#ifndef WORKER_INVENTORY_H
#define WORKER_INVENTORY_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "worker/config.h"

struct inventory_gpu {
    uint32_t index; /* as in CUDA_VISIBLE_DEVICES */
    char uuid[96];
    char model[96];
    uint64_t memory_bytes; /* 0: not known */
    char health[128];      /* "ok" or what is wrong */
};
struct inventory {
    struct inventory_gpu *gpus; /* owned */
    size_t count, capacity;
};

/* Declared ones, or what NVML finds. Without a driver the node has none, and *note says why in one
 * line ("" when there is nothing to say). */
void inventory_init(struct inventory *inv, const struct config *config, struct err *note);
void inventory_fini(struct inventory *inv);
struct inventory_gpu *inventory_add(struct inventory *inv);

/* inventory_nvml.c. ERR_NOT_FOUND without the library; ERR_FAILED with what the driver said. */
int inventory_read_nvml(struct inventory *inv, const char *library, struct err *err);

#endif
