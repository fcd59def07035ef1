/* NVML by dlopen, so that one binary runs with and without a driver. Its C interface is stable; the
 * few calls and types used are declared here, as the header belongs to the CUDA toolkit. */
#include "worker/inventory.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define NVML_SUCCESS 0

struct nvml_device;
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*count)(unsigned *);
    int (*handle)(unsigned, struct nvml_device **);
    int (*name)(struct nvml_device *, char *, unsigned);
    int (*uuid)(struct nvml_device *, char *, unsigned);
    int (*memory)(struct nvml_device *, struct nvml_memory *);
};

static int find(const struct nvml *nvml, void *function, const char *name, struct err *err)
{
    void *symbol = dlsym(nvml->library, name);
    if (symbol == NULL) {
        return err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver has no %s (too old?)",
                       name);
    }
    /* The one way from an object to a function pointer that C allows. */
    memcpy(function, &symbol, sizeof symbol);
    return 0;
}

static int open_library(struct nvml *nvml, const char *library, struct err *err)
{
    nvml->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        return err_set(err, ERR_NOT_FOUND,
                       "no accelerators: no NVIDIA driver here, %s (declare them with "
                       "`accelerators:` or --accelerators)",
                       dlerror());
    }
    TRY(find(nvml, &nvml->init, "nvmlInit_v2", err));
    TRY(find(nvml, &nvml->shutdown, "nvmlShutdown", err));
    TRY(find(nvml, &nvml->error_string, "nvmlErrorString", err));
    TRY(find(nvml, &nvml->count, "nvmlDeviceGetCount_v2", err));
    TRY(find(nvml, &nvml->handle, "nvmlDeviceGetHandleByIndex_v2", err));
    TRY(find(nvml, &nvml->name, "nvmlDeviceGetName", err));
    TRY(find(nvml, &nvml->uuid, "nvmlDeviceGetUUID", err));
    return find(nvml, &nvml->memory, "nvmlDeviceGetMemoryInfo", err);
}

/* A device that cannot be asked is still there: it is listed as unhealthy. */
static void read_device(const struct nvml *nvml, unsigned i, struct inventory_gpu *gpu)
{
    struct nvml_device *device = NULL;
    struct nvml_memory memory = {0};
    int rc = nvml->handle(i, &device);
    if (rc == NVML_SUCCESS) {
        rc = nvml->uuid(device, gpu->uuid, sizeof gpu->uuid);
    }
    if (rc == NVML_SUCCESS) {
        rc = nvml->name(device, gpu->model, sizeof gpu->model);
    }
    if (rc == NVML_SUCCESS) {
        rc = nvml->memory(device, &memory);
    }
    if (rc == NVML_SUCCESS) {
        gpu->memory_bytes = memory.total;
        return;
    }
    snprintf(gpu->health, sizeof gpu->health, "NVML: %s", nvml->error_string(rc));
    if (gpu->model[0] == 0) {
        snprintf(gpu->model, sizeof gpu->model, "unknown");
    }
}

int inventory_read_nvml(struct inventory *inv, const char *library, struct err *err)
{
    struct nvml nvml = {0};
    unsigned count = 0;
    int rc = open_library(&nvml, library, err);
    if (rc != 0) {
        goto out;
    }
    int status = nvml.init();
    if (status != NVML_SUCCESS) {
        rc = err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver does not start: %s",
                     nvml.error_string(status));
        goto out;
    }
    status = nvml.count(&count);
    if (status != NVML_SUCCESS) {
        rc = err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver cannot count them: %s",
                     nvml.error_string(status));
    }
    for (unsigned i = 0; i < count && rc == 0; i++) {
        read_device(&nvml, i, inventory_add(inv));
    }
    nvml.shutdown();
out:
    if (nvml.library != NULL) {
        dlclose(nvml.library);
    }
    return rc;
}
