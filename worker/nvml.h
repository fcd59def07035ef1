/* NVIDIA's management library by dlopen, so that one binary runs with and without a driver. Calls
 * that an older driver does not have are left out of what is read. An open one may be used by one
 * thread at a time. */
#ifndef WORKER_NVML_H
#define WORKER_NVML_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "worker/gpu_facts.h"

struct nvml;

struct nvml_identity {
    char uuid[96];
    char model[96];
    char bus[32]; /* "0000:65:00", as the kernel's log names it; "" when not known */
    uint64_t memory_bytes;
};

/* ERR_NOT_FOUND without the library; ERR_FAILED with what the driver said. */
int nvml_open(struct nvml **nvml, const char *library, struct err *err);
void nvml_close(struct nvml *nvml); /* NULL is fine */
int nvml_count(struct nvml *nvml, unsigned *count, struct err *err);
/* Fails where the device cannot be asked, with what the driver says. */
int nvml_identify(struct nvml *nvml, unsigned device, struct nvml_identity *id, struct err *err);
/* All but xid, which is left as it is. */
void nvml_read(struct nvml *nvml, unsigned device, struct gpu_facts *facts);
/* Waits for an Xid of any device. True: *device had *xid. Without events of the driver it waits
 * all the same. */
bool nvml_wait_xid(struct nvml *nvml, uint32_t timeout_ms, unsigned *device, uint32_t *xid);

#endif
