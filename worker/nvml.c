/* The library's C interface is stable; the calls, types and numbers used are declared here, as the
 * header belongs to the CUDA toolkit, which a node need not have. */
#include "worker/nvml.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/mem.h"

enum {
    NVML_OK = 0,
    NVML_GPU_IS_LOST = 15,
    UNCORRECTED = 1, /* nvmlMemoryErrorType_t; 0 is corrected */
    AGGREGATE = 1,   /* nvmlEccCounterType_t; 0 is since the driver was loaded */
    LINKS_MAX = 18,
    FIELD_RECOVERY_ACTION = 230,
    EVENT_XID = 8,
};
enum link_counter { LINK_REPLAY, LINK_RECOVERY, LINK_CRC_FLIT, LINK_CRC_DATA };

struct nvml_device;
struct nvml_event_set;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_pci {
    char bus_legacy[16];
    unsigned domain, bus, device, ids, subsystem;
    char bus_id[32];
};
struct nvml_field {
    unsigned id, scope;
    long long timestamp, latency;
    int type, status;
    union {
        unsigned u;
        unsigned long long wide;
        double real;
    } value;
};
struct nvml_event {
    struct nvml_device *device;
    unsigned long long type, data;
    unsigned instance, compute_instance;
};

typedef unsigned long long u64;
struct nvml {
    void *library;
    struct nvml_event_set *events; /* or NULL */
    struct nvml_device **devices;  /* owned; of those that can be asked, by index */
    unsigned count;

    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*device_count)(unsigned *);
    int (*handle)(unsigned, struct nvml_device **);
    int (*name)(struct nvml_device *, char *, unsigned);
    int (*uuid)(struct nvml_device *, char *, unsigned);
    int (*memory)(struct nvml_device *, struct nvml_memory *);
    /* From here on NULL where the driver has none. */
    int (*pci)(struct nvml_device *, struct nvml_pci *);
    int (*ecc_errors)(struct nvml_device *, int type, int counter, u64 *);
    int (*remapped)(struct nvml_device *, unsigned *, unsigned *, unsigned *, unsigned *);
    int (*link_state)(struct nvml_device *, unsigned link, int *active);
    int (*link_errors)(struct nvml_device *, unsigned link, int counter, u64 *);
    int (*pcie_generation)(struct nvml_device *, unsigned *);
    int (*pcie_generation_max)(struct nvml_device *, unsigned *);
    int (*pcie_width)(struct nvml_device *, unsigned *);
    int (*pcie_width_max)(struct nvml_device *, unsigned *);
    int (*throttle)(struct nvml_device *, u64 *);
    int (*fields)(struct nvml_device *, int, struct nvml_field *);
    int (*set_create)(struct nvml_event_set **);
    int (*set_free)(struct nvml_event_set *);
    int (*set_wait)(struct nvml_event_set *, struct nvml_event *, unsigned);
    int (*register_events)(struct nvml_device *, u64, struct nvml_event_set *);
};

/* ---- opening */

/* The one way from an object to a function pointer that C allows. */
static bool find(const struct nvml *nvml, void *function, const char *name)
{
    void *symbol = dlsym(nvml->library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static int need(const struct nvml *nvml, void *function, const char *name, struct err *err)
{
    return find(nvml, function, name)
               ? 0
               : err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver has no %s (too old?)",
                         name);
}

static int find_all(struct nvml *nvml, struct err *err)
{
    TRY(need(nvml, &nvml->init, "nvmlInit_v2", err));
    TRY(need(nvml, &nvml->shutdown, "nvmlShutdown", err));
    TRY(need(nvml, &nvml->error_string, "nvmlErrorString", err));
    TRY(need(nvml, &nvml->device_count, "nvmlDeviceGetCount_v2", err));
    TRY(need(nvml, &nvml->handle, "nvmlDeviceGetHandleByIndex_v2", err));
    TRY(need(nvml, &nvml->name, "nvmlDeviceGetName", err));
    TRY(need(nvml, &nvml->uuid, "nvmlDeviceGetUUID", err));
    TRY(need(nvml, &nvml->memory, "nvmlDeviceGetMemoryInfo", err));
    find(nvml, &nvml->pci, "nvmlDeviceGetPciInfo_v3");
    find(nvml, &nvml->ecc_errors, "nvmlDeviceGetTotalEccErrors");
    find(nvml, &nvml->remapped, "nvmlDeviceGetRemappedRows");
    find(nvml, &nvml->link_state, "nvmlDeviceGetNvLinkState");
    find(nvml, &nvml->link_errors, "nvmlDeviceGetNvLinkErrorCounter");
    find(nvml, &nvml->pcie_generation, "nvmlDeviceGetCurrPcieLinkGeneration");
    find(nvml, &nvml->pcie_generation_max, "nvmlDeviceGetMaxPcieLinkGeneration");
    find(nvml, &nvml->pcie_width, "nvmlDeviceGetCurrPcieLinkWidth");
    find(nvml, &nvml->pcie_width_max, "nvmlDeviceGetMaxPcieLinkWidth");
    if (!find(nvml, &nvml->throttle, "nvmlDeviceGetCurrentClocksEventReasons")) {
        find(nvml, &nvml->throttle, "nvmlDeviceGetCurrentClocksThrottleReasons");
    }
    find(nvml, &nvml->fields, "nvmlDeviceGetFieldValues");
    find(nvml, &nvml->set_create, "nvmlEventSetCreate");
    find(nvml, &nvml->set_free, "nvmlEventSetFree");
    find(nvml, &nvml->set_wait, "nvmlEventSetWait_v2");
    find(nvml, &nvml->register_events, "nvmlDeviceRegisterEvents");
    return 0;
}

static void watch_events(struct nvml *nvml)
{
    if (nvml->set_create == NULL || nvml->set_free == NULL || nvml->set_wait == NULL ||
        nvml->register_events == NULL || nvml->set_create(&nvml->events) != NVML_OK) {
        nvml->events = NULL;
        return;
    }
    for (unsigned i = 0; i < nvml->count; i++) {
        if (nvml->devices[i] != NULL) {
            nvml->register_events(nvml->devices[i], EVENT_XID, nvml->events);
        }
    }
}

static int start(struct nvml *nvml, struct err *err)
{
    int status = nvml->init();
    if (status != NVML_OK) {
        return err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver does not start: %s",
                       nvml->error_string(status));
    }
    status = nvml->device_count(&nvml->count);
    if (status != NVML_OK) {
        nvml->shutdown();
        return err_set(err, ERR_FAILED, "no accelerators: the NVIDIA driver cannot count them: %s",
                       nvml->error_string(status));
    }
    nvml->devices = mem_alloc_array(nvml->count, sizeof *nvml->devices);
    for (unsigned i = 0; i < nvml->count; i++) {
        if (nvml->handle(i, &nvml->devices[i]) != NVML_OK) {
            nvml->devices[i] = NULL;
        }
    }
    watch_events(nvml);
    return 0;
}

int nvml_open(struct nvml **out, const char *library, struct err *err)
{
    struct nvml *nvml = mem_alloc(sizeof *nvml);
    *out = NULL;
    nvml->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        free(nvml);
        return err_set(err, ERR_NOT_FOUND,
                       "no accelerators: no NVIDIA driver here, %s (declare them with "
                       "`accelerators:` or --accelerators)",
                       dlerror());
    }
    int rc = find_all(nvml, err);
    rc = rc == 0 ? start(nvml, err) : rc;
    if (rc != 0) {
        dlclose(nvml->library);
        free(nvml);
        return rc;
    }
    *out = nvml;
    return 0;
}

void nvml_close(struct nvml *nvml)
{
    if (nvml == NULL) {
        return;
    }
    if (nvml->events != NULL) {
        nvml->set_free(nvml->events);
    }
    nvml->shutdown();
    dlclose(nvml->library);
    free(nvml->devices);
    free(nvml);
}

int nvml_count(struct nvml *nvml, unsigned *count, struct err *err)
{
    int status = nvml->device_count(count);
    return status == NVML_OK ? 0 : err_set(err, ERR_FAILED, "NVML: %s", nvml->error_string(status));
}

/* ---- reading */

/* "00000000:65:00.0" -> "0000:65:00": the kernel's log has a short domain and no function. */
static void short_bus(const char *id, char *bus, size_t bytes)
{
    size_t len = strlen(id);
    const char *from = len > 12 ? id + (len - 12) : id;
    snprintf(bus, bytes, "%.10s", from);
    for (char *p = bus; *p != 0; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
}

int nvml_identify(struct nvml *nvml, unsigned device, struct nvml_identity *id, struct err *err)
{
    struct nvml_device *d = NULL;
    struct nvml_memory memory = {0};
    struct nvml_pci pci = {.bus_id = ""};
    *id = (struct nvml_identity){.bus = ""};
    int rc = nvml->handle(device, &d);
    if (rc == NVML_OK) {
        rc = nvml->uuid(d, id->uuid, sizeof id->uuid);
    }
    if (rc == NVML_OK) {
        rc = nvml->name(d, id->model, sizeof id->model);
    }
    if (rc == NVML_OK) {
        rc = nvml->memory(d, &memory);
    }
    if (rc != NVML_OK) {
        return err_set(err, ERR_FAILED, "NVML: %s", nvml->error_string(rc));
    }
    if (nvml->pci != NULL && nvml->pci(d, &pci) == NVML_OK) {
        short_bus(pci.bus_id, id->bus, sizeof id->bus);
    }
    id->memory_bytes = memory.total;
    return 0;
}

static uint64_t ecc_errors(const struct nvml *nvml, struct nvml_device *d, int type, int counter)
{
    u64 count = 0;
    return nvml->ecc_errors != NULL && nvml->ecc_errors(d, type, counter, &count) == NVML_OK ? count
                                                                                             : 0;
}

static uint32_t number(int (*call)(struct nvml_device *, unsigned *), struct nvml_device *d)
{
    unsigned value = 0;
    return call != NULL && call(d, &value) == NVML_OK ? value : 0;
}

static void read_links(const struct nvml *nvml, struct nvml_device *d, struct gpu_facts *facts)
{
    for (unsigned link = 0; nvml->link_state != NULL && link < LINKS_MAX; link++) {
        int active = 0;
        if (nvml->link_state(d, link, &active) != NVML_OK) {
            continue; /* this GPU has fewer */
        }
        facts->nvlinks++;
        facts->nvlinks_up += active != 0;
        u64 count[4] = {0};
        for (int i = LINK_REPLAY; nvml->link_errors != NULL && i <= LINK_CRC_DATA; i++) {
            if (nvml->link_errors(d, link, i, &count[i]) != NVML_OK) {
                count[i] = 0;
            }
        }
        facts->nvlink_replays += count[LINK_REPLAY];
        facts->nvlink_recoveries += count[LINK_RECOVERY];
        facts->nvlink_crc += count[LINK_CRC_FLIT] + count[LINK_CRC_DATA];
    }
}

static enum gpu_recovery read_recovery(const struct nvml *nvml, struct nvml_device *d)
{
    struct nvml_field field = {.id = FIELD_RECOVERY_ACTION};
    if (nvml->fields == NULL || nvml->fields(d, 1, &field) != NVML_OK || field.status != NVML_OK ||
        field.value.u > RECOVERY_DRAIN_AND_RESET) {
        return RECOVERY_NONE;
    }
    return (enum gpu_recovery)field.value.u;
}

void nvml_read(struct nvml *nvml, unsigned device, struct gpu_facts *facts)
{
    struct nvml_device *d = NULL;
    unsigned pending = 0, failed = 0;
    *facts = (struct gpu_facts){.xid = facts->xid};
    struct nvml_memory memory;
    int rc = nvml->handle(device, &d);
    if (rc == NVML_OK) {
        rc = nvml->memory(d, &memory);
    }
    facts->lost = rc == NVML_GPU_IS_LOST;
    if (rc != NVML_OK) {
        return;
    }
    facts->ecc_corrected = ecc_errors(nvml, d, 0, 0);
    facts->ecc_uncorrected = ecc_errors(nvml, d, UNCORRECTED, 0);
    facts->ecc_uncorrected_ever = ecc_errors(nvml, d, UNCORRECTED, AGGREGATE);
    if (nvml->remapped != NULL &&
        nvml->remapped(d, &facts->rows_corrected, &facts->rows_uncorrected, &pending, &failed) ==
            NVML_OK) {
        facts->remap_pending = pending != 0;
        facts->remap_failed = failed != 0;
    }
    read_links(nvml, d, facts);
    facts->pcie_generation = number(nvml->pcie_generation, d);
    facts->pcie_generation_max = number(nvml->pcie_generation_max, d);
    facts->pcie_width = number(nvml->pcie_width, d);
    facts->pcie_width_max = facts->pcie_width > 0 ? number(nvml->pcie_width_max, d) : 0;
    u64 reasons = 0;
    if (nvml->throttle != NULL && nvml->throttle(d, &reasons) == NVML_OK) {
        facts->throttle = reasons;
    }
    facts->recovery = read_recovery(nvml, d);
}

static void sleep_ms(uint32_t ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

bool nvml_wait_xid(struct nvml *nvml, uint32_t timeout_ms, unsigned *device, uint32_t *xid)
{
    struct nvml_event event = {0};
    if (nvml->events == NULL) {
        sleep_ms(timeout_ms);
        return false;
    }
    int rc = nvml->set_wait(nvml->events, &event, timeout_ms);
    if (rc != NVML_OK) {
        if (rc != 10) { /* not a time-out: do not spin */
            sleep_ms(timeout_ms);
        }
        return false;
    }
    for (unsigned i = 0; i < nvml->count; i++) {
        if (nvml->devices[i] == event.device && (event.type & EVENT_XID) != 0) {
            *device = i;
            *xid = (uint32_t)event.data;
            return true;
        }
    }
    return false;
}
