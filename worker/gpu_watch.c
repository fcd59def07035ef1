#include "worker/gpu_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/nvml.h"

#define TURN_MS       500
#define SAY_AGAIN_MS  300000
#define KMSG_LINE_MAX 8192

struct watched {
    char bus[32];
    struct gpu_facts facts;
    enum gpu_verdict verdict; /* as told, with health and when */
    char health[INVENTORY_HEALTH_BYTES];
    int64_t told_ms;
};

struct gpu_watch {
    uv_async_t async;
    void (*changed)(void *owner);
    void *owner;
    struct nvml *nvml; /* owned; the thread's */
    int kmsg;          /* or -1 */
    char line[KMSG_LINE_MAX];
    size_t line_bytes;
    int64_t every_ms, read_at_ms;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock;    /* of health */
    struct watched *watched; /* owned */
    unsigned count;
};

/* ---- Xids */

static void note_xid(struct gpu_watch *w, unsigned device, uint32_t xid)
{
    struct gpu_facts *facts = &w->watched[device].facts;
    if (xid_verdict(xid) >= xid_verdict(facts->xid)) {
        facts->xid = xid;
    }
    w->read_at_ms = 0; /* look at once */
}

static void kmsg_line(struct gpu_watch *w, const char *line)
{
    char bus[32];
    uint32_t xid;
    if (!xid_parse(line, &xid, bus, sizeof bus)) {
        return;
    }
    for (unsigned i = 0; i < w->count; i++) {
        if (strcmp(w->watched[i].bus, bus) == 0) {
            note_xid(w, i, xid);
        }
    }
}

/* /dev/kmsg gives a record at a time, a file whatever there is. */
static void read_kmsg(struct gpu_watch *w)
{
    for (;;) {
        ssize_t n = w->kmsg >= 0
                        ? read(w->kmsg, w->line + w->line_bytes, sizeof w->line - 1 - w->line_bytes)
                        : 0;
        if (n < 0 && (errno == EINTR || errno == EPIPE)) { /* EPIPE: records were overwritten */
            continue;
        }
        if (n <= 0) {
            return;
        }
        w->line_bytes += (size_t)n;
        w->line[w->line_bytes] = 0;
        char *from = w->line, *end;
        while ((end = strchr(from, '\n')) != NULL) {
            *end = 0;
            kmsg_line(w, from);
            from = end + 1;
        }
        w->line_bytes = strlen(from);
        memmove(w->line, from, w->line_bytes + 1);
        if (w->line_bytes == sizeof w->line - 1) {
            w->line_bytes = 0; /* no line is that long */
        }
    }
}

/* ---- the thread */

static bool is_worth_telling(const struct watched *g, enum gpu_verdict verdict, const char *health)
{
    bool minor = verdict <= GPU_WATCH && g->verdict <= GPU_WATCH;
    return strcmp(health, g->health) != 0 &&
           (!minor || g->told_ms == 0 || clock_boot_ms() - g->told_ms >= SAY_AGAIN_MS);
}

static void read_all(struct gpu_watch *w)
{
    bool changed = false;
    for (unsigned i = 0; i < w->count; i++) {
        struct watched *g = &w->watched[i];
        char health[sizeof g->health];
        nvml_read(w->nvml, i, &g->facts);
        enum gpu_verdict verdict = gpu_judge(&g->facts, health, sizeof health);
        if (is_worth_telling(g, verdict, health)) {
            pthread_mutex_lock(&w->lock);
            memcpy(g->health, health, sizeof health);
            g->verdict = verdict;
            g->told_ms = clock_boot_ms();
            pthread_mutex_unlock(&w->lock);
            changed = true;
        }
    }
    w->read_at_ms = clock_boot_ms();
    if (changed) {
        uv_async_send(&w->async);
    }
}

static void *watch(void *arg)
{
    struct gpu_watch *w = arg;
    while (!atomic_load(&w->stop)) {
        unsigned device;
        uint32_t xid;
        if (nvml_wait_xid(w->nvml, TURN_MS, &device, &xid) && device < w->count) {
            note_xid(w, device, xid);
        }
        read_kmsg(w);
        if (w->read_at_ms == 0 || clock_boot_ms() - w->read_at_ms >= w->every_ms) {
            read_all(w);
        }
    }
    return NULL;
}

/* ---- from the loop */

static void on_async(uv_async_t *async)
{
    struct gpu_watch *w = async->data;
    w->changed(w->owner);
}

static int open_kmsg(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        log_warn("cannot read %s: %s; Xids are known from the driver alone", path, strerror(errno));
        return -1;
    }
    lseek(fd, 0, SEEK_END); /* what was before is history */
    return fd;
}

struct gpu_watch *gpu_watch_start(uv_loop_t *loop, const struct config *config,
                                  const struct inventory *inv, void (*changed)(void *owner),
                                  void *owner)
{
    struct nvml *nvml;
    struct err err = {0};
    if (inv->devices == 0 || nvml_open(&nvml, config->nvml_library, &err) != 0) {
        return NULL;
    }
    struct gpu_watch *w = mem_alloc(sizeof *w);
    w->changed = changed;
    w->owner = owner;
    w->nvml = nvml;
    w->kmsg = open_kmsg(config->kmsg);
    w->every_ms = (int64_t)config->health_interval_ms;
    w->read_at_ms = clock_boot_ms(); /* the inventory is fresh */
    w->count = (unsigned)inv->devices;
    w->watched = mem_alloc_array(w->count, sizeof *w->watched);
    for (unsigned i = 0; i < w->count; i++) {
        struct watched *g = &w->watched[i];
        memcpy(g->bus, inv->gpus[i].bus, sizeof g->bus);
        memcpy(g->health, inv->gpus[i].health, sizeof g->health);
        g->verdict = inv->gpus[i].verdict;
    }
    pthread_mutex_init(&w->lock, NULL);
    uv_async_init(loop, &w->async, on_async);
    w->async.data = w;
    if (pthread_create(&w->thread, NULL, watch, w) != 0) {
        abort(); /* no memory for a thread at start */
    }
    return w;
}

bool gpu_watch_take(struct gpu_watch *w, struct inventory *inv)
{
    bool different = false;
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < w->count && i < inv->count; i++) {
        struct inventory_gpu *gpu = &inv->gpus[i];
        if (strcmp(gpu->health, w->watched[i].health) != 0) {
            memcpy(gpu->health, w->watched[i].health, sizeof gpu->health);
            gpu->verdict = w->watched[i].verdict;
            log_warn("accelerator %u: %s", gpu->index, gpu->health);
            different = true;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return different;
}

static void on_closed(uv_handle_t *handle)
{
    struct gpu_watch *w = handle->data;
    pthread_mutex_destroy(&w->lock);
    free(w->watched);
    free(w);
}

void gpu_watch_stop(struct gpu_watch *w)
{
    if (w == NULL) {
        return;
    }
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    nvml_close(w->nvml);
    if (w->kmsg >= 0) {
        close(w->kmsg);
    }
    uv_close((uv_handle_t *)&w->async, on_closed);
}
