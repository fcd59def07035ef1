#include "worker/inventory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "worker/nvml.h"

struct inventory_gpu *inventory_add(struct inventory *inv)
{
    void *gpus = inv->gpus;
    mem_grow(&gpus, &inv->capacity, inv->count + 1, sizeof *inv->gpus);
    inv->gpus = gpus;
    struct inventory_gpu *gpu = &inv->gpus[inv->count];
    *gpu = (struct inventory_gpu){.index = (uint32_t)inv->count++, .health = "ok"};
    return gpu;
}

/* Unique in the cluster, as node names are, and the same after a restart. */
static void name_by_place(struct inventory_gpu *gpu, const char *node)
{
    snprintf(gpu->uuid, sizeof gpu->uuid, "%s/%" PRIu32, node, gpu->index);
}

static void declare(struct inventory *inv, const char *node, const struct config_accelerator *a)
{
    for (uint32_t i = 0; i < a->count; i++) {
        struct inventory_gpu *gpu = inventory_add(inv);
        snprintf(gpu->model, sizeof gpu->model, "%s", a->model);
        name_by_place(gpu, node);
    }
}

/* A device that cannot be asked is still there: it is listed as unhealthy. */
static void read_device(struct nvml *nvml, unsigned device, struct inventory_gpu *gpu)
{
    struct nvml_identity id;
    struct gpu_facts facts = {0};
    struct err err = {0};
    if (nvml_identify(nvml, device, &id, &err) != 0) {
        snprintf(gpu->health, sizeof gpu->health, "%.*s", (int)sizeof gpu->health - 1, err.text);
        snprintf(gpu->model, sizeof gpu->model, "%s", id.model[0] != 0 ? id.model : "unknown");
        gpu->verdict = GPU_REBOOT;
        return;
    }
    memcpy(gpu->uuid, id.uuid, sizeof gpu->uuid);
    memcpy(gpu->model, id.model, sizeof gpu->model);
    memcpy(gpu->bus, id.bus, sizeof gpu->bus);
    gpu->memory_bytes = id.memory_bytes;
    nvml_read(nvml, device, &facts);
    gpu->verdict = gpu_judge(&facts, gpu->health, sizeof gpu->health);
}

static int read_driver(struct inventory *inv, const char *library, struct err *err)
{
    struct nvml *nvml;
    unsigned count;
    TRY(nvml_open(&nvml, library, err));
    int rc = nvml_count(nvml, &count, err);
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        read_device(nvml, i, inventory_add(inv));
        inv->devices++;
    }
    nvml_close(nvml);
    return rc;
}

void inventory_init(struct inventory *inv, const struct config *config, struct err *note)
{
    *inv = (struct inventory){0};
    *note = (struct err){0};
    if (config->accelerators_auto && read_driver(inv, config->nvml_library, note) != 0) {
        inventory_fini(inv);
    }
    for (size_t i = 0; i < inv->count; i++) {
        if (inv->gpus[i].uuid[0] == 0) {
            name_by_place(&inv->gpus[i], config->name);
        }
    }
    for (size_t i = 0; i < config->accelerator_count; i++) {
        declare(inv, config->name, &config->accelerators[i]);
    }
}

void inventory_fini(struct inventory *inv)
{
    free(inv->gpus);
    *inv = (struct inventory){0};
}
