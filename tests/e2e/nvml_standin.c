/* A stand-in for the NVIDIA driver's management library, told by a file what to say: each line is
 * "KEY VALUE", read anew at every call, so that a test changes it while a worker runs. The file is
 * named by DS_NVML_SCRIPT.
 *
 *   count 2                    how many GPUs
 *   0.name NVIDIA H800         and 0.uuid, 0.memory (bytes), 0.bus (00000000:65:00.0)
 *   0.lost 1                   the device answers GPU_IS_LOST
 *   0.ecc_corrected 3          and 0.ecc_uncorrected, 0.ecc_uncorrected_ever
 *   0.rows 2 1 0 0           remapped: corrected, uncorrected, pending, failed (four numbers)
 *   0.links 18                 NVLinks, and 0.links_up; 0.link_crc, 0.link_replay, 0.link_recovery
 * of link 0 0.pcie 5 5 16 16         generation and its maximum, width and its maximum 0.throttle
 * 64              clock event reasons 0.recovery 1               the recovery action xid 1 0 79
 * event number 1 is Xid 79 of GPU 0; another number is another event init 9 what nvmlInit_v2
 * returns
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, TIMEOUT = 10, LOST = 15, GPUS_MAX = 64 };

struct memory {
    unsigned long long total, free, used;
};
struct pci {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem;
    char bus_id[32];
};
struct field {
    unsigned id, scope;
    long long timestamp, latency;
    int type, status;
    union {
        unsigned u;
        double real;
    } value;
};
struct event {
    void *device;
    unsigned long long type, data;
    unsigned instance, compute_instance;
};

static char devices[GPUS_MAX]; /* a handle is a place in it */

static int get(const char *key, char *value, size_t bytes)
{
    const char *path = getenv("DS_NVML_SCRIPT");
    FILE *f = path != NULL ? fopen(path, "re") : NULL;
    char line[512];
    int found = 0;
    size_t len = strlen(key);
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, len) == 0 && line[len] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, bytes, "%s", line + len + 1);
            found = 1;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return found;
}

static int of(void *device, const char *key, char *value, size_t bytes)
{
    char full[64];
    snprintf(full, sizeof full, "%d.%s", (int)((char *)device - devices), key);
    return get(full, value, bytes);
}

static unsigned long long number(void *device, const char *key)
{
    char value[64];
    return of(device, key, value, sizeof value) ? strtoull(value, NULL, 0) : 0;
}

/* The n-th of a few numbers in one value. */
static unsigned nth(void *device, const char *key, int n)
{
    char value[128];
    unsigned of_them[4] = {0};
    if (!of(device, key, value, sizeof value) ||
        sscanf(value, "%u %u %u %u", &of_them[0], &of_them[1], &of_them[2], &of_them[3]) < 1) {
        return 0;
    }
    return of_them[n];
}

static int has(void *device, const char *key)
{
    char value[128];
    return of(device, key, value, sizeof value);
}

static int is_lost(void *device)
{
    return number(device, "lost") != 0;
}

int nvmlInit_v2(void)
{
    char value[16];
    return get("init", value, sizeof value) ? atoi(value) : OK;
}
int nvmlShutdown(void)
{
    return OK;
}
const char *nvmlErrorString(int rc)
{
    return rc == LOST ? "GPU is lost" : rc == NOT_SUPPORTED ? "Not Supported" : "Unknown Error";
}
int nvmlDeviceGetCount_v2(unsigned *count)
{
    char value[16];
    *count = get("count", value, sizeof value) ? (unsigned)atoi(value) : 0;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device)
{
    *device = devices + i;
    return i < GPUS_MAX ? OK : 2;
}
int nvmlDeviceGetName(void *d, char *s, unsigned n)
{
    return is_lost(d) ? LOST : of(d, "name", s, n) ? OK : (snprintf(s, n, "NVIDIA H800"), OK);
}
int nvmlDeviceGetUUID(void *d, char *s, unsigned n)
{
    return is_lost(d)            ? LOST
           : of(d, "uuid", s, n) ? OK
                                 : (snprintf(s, n, "GPU-%d", (int)((char *)d - devices)), OK);
}
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m)
{
    m->total = has(d, "memory") ? number(d, "memory") : 85899345920u;
    return is_lost(d) ? LOST : OK;
}
int nvmlDeviceGetPciInfo_v3(void *d, struct pci *pci)
{
    if (!of(d, "bus", pci->bus_id, sizeof pci->bus_id)) {
        snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0",
                 (unsigned)(16 * ((char *)d - devices) + 5));
    }
    return OK;
}
int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, unsigned long long *count)
{
    *count = number(d, type == 0      ? "ecc_corrected"
                       : counter == 0 ? "ecc_uncorrected"
                                      : "ecc_uncorrected_ever");
    return OK;
}
int nvmlDeviceGetRemappedRows(void *d, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed)
{
    *corrected = nth(d, "rows", 0);
    *uncorrected = nth(d, "rows", 1);
    *pending = nth(d, "rows", 2);
    *failed = nth(d, "rows", 3);
    return OK;
}
int nvmlDeviceGetNvLinkState(void *d, unsigned link, int *active)
{
    unsigned long long links = number(d, "links");
    *active = link < (has(d, "links_up") ? number(d, "links_up") : links);
    return link < links ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetNvLinkErrorCounter(void *d, unsigned link, int counter, unsigned long long *count)
{
    static const char *const keys[] = {"link_replay", "link_recovery", "link_crc", "link_crc_data"};
    *count = link == 0 && counter >= 0 && counter < 4 ? number(d, keys[counter]) : 0;
    return OK;
}
int nvmlDeviceGetCurrPcieLinkGeneration(void *d, unsigned *value)
{
    *value = nth(d, "pcie", 0);
    return has(d, "pcie") ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxPcieLinkGeneration(void *d, unsigned *value)
{
    *value = nth(d, "pcie", 1);
    return has(d, "pcie") ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetCurrPcieLinkWidth(void *d, unsigned *value)
{
    *value = nth(d, "pcie", 2);
    return has(d, "pcie") ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxPcieLinkWidth(void *d, unsigned *value)
{
    *value = nth(d, "pcie", 3);
    return has(d, "pcie") ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *reasons)
{
    *reasons = number(d, "throttle");
    return OK;
}
int nvmlDeviceGetFieldValues(void *d, int count, struct field *fields)
{
    for (int i = 0; i < count; i++) {
        fields[i].status = fields[i].id == 230 && has(d, "recovery") ? OK : NOT_SUPPORTED;
        fields[i].value.u = (unsigned)number(d, "recovery");
    }
    return OK;
}

/* ---- events */

static int event_set;
static int last_event;

int nvmlEventSetCreate(void **set)
{
    *set = &event_set;
    return OK;
}
int nvmlEventSetFree(void *set)
{
    (void)set;
    return OK;
}
int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void *set)
{
    (void)d;
    (void)set;
    return types == 8 ? OK : NOT_SUPPORTED;
}
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned timeout_ms)
{
    (void)set;
    for (unsigned waited = 0;; waited += 20) {
        char value[64];
        int serial, gpu;
        unsigned xid;
        if (get("xid", value, sizeof value) &&
            sscanf(value, "%d %d %u", &serial, &gpu, &xid) == 3 && serial > last_event &&
            gpu >= 0 && gpu < GPUS_MAX) {
            last_event = serial;
            *event = (struct event){.device = devices + gpu, .type = 8, .data = xid};
            return OK;
        }
        if (waited >= timeout_ms) {
            return TIMEOUT;
        }
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}
