#include "trainer/cuda/comm_nccl.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/cuda/state.h"

enum { EXIT_COLLECTIVE = 85, POLL_MS = 20, PENDING_MAX = 1024, STAGES = 2 };

/* ---- the library */

static struct {
    ncclResult_t (*get_unique_id)(ncclUniqueId *);
    ncclResult_t (*init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
    ncclResult_t (*async_error)(ncclComm_t, ncclResult_t *);
    ncclResult_t (*abort)(ncclComm_t);
    ncclResult_t (*destroy)(ncclComm_t);
    const char *(*text)(ncclResult_t);
    ncclResult_t (*all_reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
                               ncclComm_t, cudaStream_t);
    ncclResult_t (*reduce)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, int,
                           ncclComm_t, cudaStream_t);
    ncclResult_t (*all_gather)(const void *, void *, size_t, ncclDataType_t, ncclComm_t,
                               cudaStream_t);
    ncclResult_t (*broadcast)(const void *, void *, size_t, ncclDataType_t, int, ncclComm_t,
                              cudaStream_t);
    ncclResult_t (*send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
    ncclResult_t (*recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
    ncclResult_t (*group_start)(void);
    ncclResult_t (*group_end)(void);
} nccl;

static int load(struct err *err)
{
    static const struct {
        void *place;
        const char *name;
    } symbols[] = {
        {&nccl.get_unique_id, "ncclGetUniqueId"},
        {&nccl.init, "ncclCommInitRankConfig"},
        {&nccl.async_error, "ncclCommGetAsyncError"},
        {&nccl.abort, "ncclCommAbort"},
        {&nccl.destroy, "ncclCommDestroy"},
        {&nccl.text, "ncclGetErrorString"},
        {&nccl.all_reduce, "ncclAllReduce"},
        {&nccl.reduce, "ncclReduce"},
        {&nccl.all_gather, "ncclAllGather"},
        {&nccl.broadcast, "ncclBroadcast"},
        {&nccl.send, "ncclSend"},
        {&nccl.recv, "ncclRecv"},
        {&nccl.group_start, "ncclGroupStart"},
        {&nccl.group_end, "ncclGroupEnd"},
    };
    if (nccl.group_end != NULL) {
        return 0;
    }
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return err_set(err, ERR_CONFIG,
                       "GPUs cannot talk to each other: %s (install NCCL, or name its folder in "
                       "LD_LIBRARY_PATH)",
                       dlerror());
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL) {
            return err_set(err, ERR_CONFIG, "this NCCL has no %s (2.14 or later is needed)",
                           symbols[i].name);
        }
        memcpy(symbols[i].place, &symbol, sizeof symbol);
    }
    return 0;
}

/* ---- a group */

struct pending { /* an event that is recorded when a collective is over, and by when */
    cudaEvent_t event;
    int64_t deadline_ms;
};

struct group {
    struct comm base;
    ncclComm_t comm;
    int64_t timeout_ms;
    char name[32];
    struct stage { /* on the device, for what is in host memory */
        void *memory;
        size_t bytes;
    } stage[STAGES];

    pthread_t watchdog;
    atomic_bool stop;
    pthread_mutex_t lock; /* of the ring below */
    struct pending pending[PENDING_MAX];
    size_t first, count;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(int ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Nobody can go on: peers wait for us and we for them. Aborting frees the device from kernels that
 * spin for a peer; when even that hangs, the process ends all the same. */
static void *abort_comm(void *comm)
{
    nccl.abort(comm);
    return NULL;
}

static _Noreturn void give_up(struct group *g, const char *why)
{
    pthread_t thread;
    struct timespec until;
    fprintf(stderr, "dstrain: collective of %s aborted: %s\n", g->name, why);
    if (pthread_create(&thread, NULL, abort_comm, g->comm) == 0) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 10;
        pthread_timedjoin_np(thread, NULL, &until);
    }
    _exit(EXIT_COLLECTIVE);
}

/* Forgets what is over. Returns whether the oldest is late. */
static bool is_late(struct group *g)
{
    bool late = false;
    pthread_mutex_lock(&g->lock);
    while (g->count > 0) {
        struct pending *p = &g->pending[g->first];
        if (cudaEventQuery(p->event) == cudaErrorNotReady) {
            late = now_ms() > p->deadline_ms;
            break;
        }
        cudaEventDestroy(p->event);
        g->first = (g->first + 1) % PENDING_MAX;
        g->count--;
    }
    pthread_mutex_unlock(&g->lock);
    return late;
}

static void *watch(void *arg)
{
    struct group *g = arg;
    while (!atomic_load(&g->stop)) {
        ncclResult_t state = ncclSuccess;
        ncclResult_t rc = nccl.async_error(g->comm, &state);
        if (rc != ncclSuccess || (state != ncclSuccess && state != ncclInProgress)) {
            give_up(g, nccl.text(rc != ncclSuccess ? rc : state));
        }
        if (is_late(g)) {
            give_up(g, "not over within its time-out: a rank is gone or stands still");
        }
        sleep_ms(POLL_MS);
    }
    return NULL;
}

/* A communicator that does not block says that it is still at it: wait until it has taken the call.
 */
static int settle(struct group *g, ncclResult_t rc, struct err *err)
{
    int64_t deadline = now_ms() + g->timeout_ms;
    while (rc == ncclInProgress) {
        if (nccl.async_error(g->comm, &rc) != ncclSuccess) {
            rc = ncclSystemError;
        }
        if (rc == ncclInProgress && now_ms() > deadline) {
            return err_set(err, ERR_COMM, "%s: the ranks did not meet within %lld s", g->name,
                           (long long)(g->timeout_ms / 1000));
        }
        if (rc == ncclInProgress) {
            sleep_ms(1);
        }
    }
    return rc == ncclSuccess ? 0 : err_set(err, ERR_COMM, "%s: NCCL: %s", g->name, nccl.text(rc));
}

static int cuda_failed(const struct group *g, cudaError_t rc, struct err *err)
{
    return rc == cudaSuccess
               ? 0
               : err_set(err, ERR_COMM, "%s: CUDA: %s", g->name, cudaGetErrorString(rc));
}

/* From now on the watchdog waits for what was queued; the oldest is waited for when there are too
 * many. */
static int expect(struct group *g, struct err *err)
{
    cudaEvent_t event;
    TRY(cuda_failed(g, cudaEventCreateWithFlags(&event, cudaEventDisableTiming), err));
    TRY(cuda_failed(g, cudaEventRecord(event, cuda_state.stream), err));
    for (;;) {
        pthread_mutex_lock(&g->lock);
        bool room = g->count < PENDING_MAX;
        if (room) {
            g->pending[(g->first + g->count++) % PENDING_MAX] =
                (struct pending){event, now_ms() + g->timeout_ms};
        }
        pthread_mutex_unlock(&g->lock);
        if (room) {
            return 0;
        }
        sleep_ms(1);
    }
}

/* ---- memory of either kind */

struct view {
    void *device;
    void *host; /* NULL: it is on the device already */
    size_t bytes;
};

/* Queues the copy in when `in`. */
static int view(struct group *g, int which, const void *p, size_t bytes, bool in, struct view *v,
                struct err *err)
{
    struct cudaPointerAttributes kind = {0};
    if (cudaPointerGetAttributes(&kind, p) == cudaSuccess && kind.type == cudaMemoryTypeDevice) {
        *v = (struct view){(void *)p, NULL, bytes};
        return 0;
    }
    struct stage *s = &g->stage[which];
    if (s->bytes < bytes) {
        TRY(cuda_failed(g, cudaStreamSynchronize(cuda_state.stream), err));
        cudaFree(s->memory);
        *s = (struct stage){0};
        TRY(cuda_failed(g, cudaMalloc(&s->memory, bytes), err));
        s->bytes = bytes;
    }
    *v = (struct view){s->memory, (void *)p, bytes};
    return in ? cuda_failed(
                    g,
                    cudaMemcpyAsync(s->memory, p, bytes, cudaMemcpyHostToDevice, cuda_state.stream),
                    err)
              : 0;
}

/* After the collective was queued: copies back and waits where the result is host memory. */
static int conclude(struct group *g, const struct view *out, struct err *err)
{
    TRY(expect(g, err));
    if (out == NULL || out->host == NULL) {
        return 0;
    }
    TRY(cuda_failed(g,
                    cudaMemcpyAsync(out->host, out->device, out->bytes, cudaMemcpyDeviceToHost,
                                    cuda_state.stream),
                    err));
    return cuda_failed(g, cudaStreamSynchronize(cuda_state.stream), err);
}

/* ---- collectives */

static int all_reduce(struct comm *c, void *data, size_t count, ncclDataType_t type, size_t each,
                      struct err *err)
{
    struct group *g = (struct group *)c;
    struct view v;
    TRY(view(g, 0, data, count * each, true, &v, err));
    TRY(settle(
        g, nccl.all_reduce(v.device, v.device, count, type, ncclSum, g->comm, cuda_state.stream),
        err));
    return conclude(g, &v, err);
}

static int all_reduce_f32(struct comm *c, float *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, ncclFloat32, sizeof *data, err);
}

static int all_reduce_f64(struct comm *c, double *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, ncclFloat64, sizeof *data, err);
}

static int all_reduce_u64(struct comm *c, uint64_t *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, ncclUint64, sizeof *data, err);
}

static bool is_queued(ncclResult_t rc)
{
    return rc == ncclSuccess || rc == ncclInProgress;
}

/* Segments may differ in length, which ncclReduceScatter does not allow: a reduction to each rank,
 * in one launch. */
static ncclResult_t enqueue_reductions(const struct group *g, float *data, const size_t *first)
{
    ncclResult_t rc = nccl.group_start();
    for (uint32_t r = 0; r < g->base.size && is_queued(rc); r++) {
        if (first[r + 1] > first[r]) {
            rc = nccl.reduce(data + first[r], data + first[r], first[r + 1] - first[r], ncclFloat32,
                             ncclSum, (int)r, g->comm, cuda_state.stream);
        }
    }
    ncclResult_t ended = nccl.group_end();
    return is_queued(rc) ? ended : rc;
}

static int reduce_scatter(struct comm *c, float *data, const size_t *first, struct err *err)
{
    struct group *g = (struct group *)c;
    struct view v;
    TRY(view(g, 0, data, first[c->size] * sizeof *data, true, &v, err));
    TRY(settle(g, enqueue_reductions(g, v.device, first), err));
    return conclude(g, &v, err);
}

static int all_gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    struct group *g = (struct group *)c;
    struct view from, to;
    TRY(view(g, 1, out, c->size * bytes, false, &to, err));
    TRY(view(g, 0, in, bytes, true, &from, err));
    TRY(settle(g,
               nccl.all_gather(from.device, to.device, bytes, ncclInt8, g->comm, cuda_state.stream),
               err));
    return conclude(g, &to, err);
}

static int all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                        const size_t *recv_bytes, struct err *err)
{
    struct group *g = (struct group *)c;
    size_t sent = 0, received = 0;
    struct view from, to;
    for (uint32_t r = 0; r < c->size; r++) {
        sent += send_bytes[r];
        received += recv_bytes[r];
    }
    TRY(view(g, 0, in, sent, true, &from, err));
    TRY(view(g, 1, out, received, false, &to, err));
    const char *source = from.device;
    char *target = to.device;
    ncclResult_t rc = nccl.group_start();
    for (uint32_t r = 0; r < c->size && is_queued(rc); r++) {
        if (send_bytes[r] > 0) {
            rc = nccl.send(source, send_bytes[r], ncclInt8, (int)r, g->comm, cuda_state.stream);
        }
        if (recv_bytes[r] > 0 && is_queued(rc)) {
            rc = nccl.recv(target, recv_bytes[r], ncclInt8, (int)r, g->comm, cuda_state.stream);
        }
        source += send_bytes[r];
        target += recv_bytes[r];
    }
    ncclResult_t ended = nccl.group_end();
    TRY(settle(g, is_queued(rc) ? ended : rc, err));
    return conclude(g, &to, err);
}

static int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    struct group *g = (struct group *)c;
    struct view v;
    TRY(view(g, 0, data, bytes, c->rank == root, &v, err));
    TRY(settle(
        g,
        nccl.broadcast(v.device, v.device, bytes, ncclInt8, (int)root, g->comm, cuda_state.stream),
        err));
    return conclude(g, &v, err);
}

/* Of the processes: all have come, so the call is waited for. */
static int barrier(struct comm *c, struct err *err)
{
    uint64_t one = 1;
    return all_reduce_u64(c, &one, 1, err);
}

static void destroy(struct comm *c)
{
    struct group *g = (struct group *)c;
    atomic_store(&g->stop, true);
    pthread_join(g->watchdog, NULL);
    cudaStreamSynchronize(cuda_state.stream);
    nccl.destroy(g->comm);
    while (g->count > 0) {
        cudaEventDestroy(g->pending[g->first].event);
        g->first = (g->first + 1) % PENDING_MAX;
        g->count--;
    }
    for (int i = 0; i < STAGES; i++) {
        cudaFree(g->stage[i].memory);
    }
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .all_reduce_sum_f32 = all_reduce_f32,
    .all_reduce_sum_f64 = all_reduce_f64,
    .all_reduce_sum_u64 = all_reduce_u64,
    .reduce_scatter_sum_f32 = reduce_scatter,
    .all_gather = all_gather,
    .all_to_all_v = all_to_all_v,
    .broadcast = broadcast,
    .barrier = barrier,
    .destroy = destroy,
};

/* ---- meeting */

/* The first rank makes the id under which all meet; the coordinator's store hands it on. */
static int exchange_id(const struct comm_store *store, const char *prefix, uint32_t rank,
                       int64_t timeout_ms, ncclUniqueId *id, struct err *err)
{
    char key[64];
    snprintf(key, sizeof key, "%s/nccl", prefix);
    if (rank == 0) {
        ncclResult_t rc = nccl.get_unique_id(id);
        if (rc != ncclSuccess) {
            return err_set(err, ERR_COMM, "%s: NCCL: %s", prefix, nccl.text(rc));
        }
        return store->set(store->ctx, key, id, sizeof *id, err);
    }
    void *value = NULL;
    size_t len = 0;
    TRY(store->get(store->ctx, key, timeout_ms, &value, &len, err));
    if (len != sizeof *id) {
        free(value);
        return err_set(err, ERR_COMM, "%s: rank 0 has an NCCL of another version", prefix);
    }
    memcpy(id, value, sizeof *id);
    free(value);
    return 0;
}

int comm_nccl_create(struct comm **c, const struct comm_store *store, const char *prefix,
                     uint32_t rank, uint32_t size, int64_t timeout_ms, struct err *err)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    TRY(load(err));
    TRY(exchange_id(store, prefix, rank, timeout_ms, &id, err));
    struct group *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return err_set(err, ERR_FAILED, "%s: out of memory", prefix);
    }
    g->base = (struct comm){&nccl_ops, rank, size};
    g->timeout_ms = timeout_ms;
    snprintf(g->name, sizeof g->name, "%s", prefix);
    config.blocking = 0;
    int rc = settle(g, nccl.init(&g->comm, (int)size, id, (int)rank, &config), err);
    if (rc != 0) {
        if (g->comm != NULL) {
            nccl.abort(g->comm);
        }
        free(g);
        return rc;
    }
    pthread_mutex_init(&g->lock, NULL);
    if (pthread_create(&g->watchdog, NULL, watch, g) != 0) {
        nccl.abort(g->comm);
        free(g);
        return err_set(err, ERR_FAILED, "%s: cannot start a thread to watch over it", prefix);
    }
    *c = &g->base;
    return 0;
}
