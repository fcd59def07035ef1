#include "trainer/run.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "proto/pipeline_schedule.h"
#include "proto/reporter.h"
#include "trainer/backend.h"
#include "trainer/comm.h"
#include "trainer/flight_comm.h"
#include "trainer/memory_text.h"
#include "trainer/mesh.h"
#include "trainer/op.h"
#include "trainer/profile.h"
#include "trainer/spec_file.h"
#include "trainer/train.h"

#define COMM_TIMEOUT_MS                                                                            \
    600000 /* a peer may legitimately be this late: a slow disk, a busy machine */
#define DRAIN_MS 5000

static volatile sig_atomic_t stop_signal;

static void on_stop(int sig)
{
    stop_signal = sig;
}

bool run_is_rank(void)
{
    return getenv("DS_REPORT_SOCKET") != NULL;
}

int run_exit_status(int code)
{
    switch (code) {
    case ERR_FAILED:
    case ERR_CONFLICT:
    case ERR_EXISTS:
        return 70; /* EX_SOFTWARE */
    case ERR_USAGE:
        return 64;
    case ERR_DENIED:
        return 77;
    case ERR_NOT_FOUND:
        return 66;
    case ERR_INVALID:
    case ERR_TOO_LARGE:
        return 78;
    case ERR_IO:
        return 86;
    case ERR_UNREACHABLE:
    case ERR_TIMEOUT:
    case ERR_PARTLY:
        return 75;
    default:
        return err_exit_status(code);
    }
}

/* ---- what the worker tells a rank */

struct place {
    uint64_t job, epoch;
    uint32_t rank, world;
    uint64_t threads, local_rank;
    const char *socket, *ckpt_dir, *tb_dir, *resume_dir, *flight_dir, *master_addr;
};

static int env_number(const char *name, uint64_t max, uint64_t *value, struct err *err)
{
    const char *text = getenv(name);
    char *end = NULL;
    errno = 0;
    *value = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != 0 || errno != 0 || text[0] == '-' || *value > max) {
        return err_set(err, ERR_USAGE,
                       "environment: %s is '%s', expected a number up to %" PRIu64
                       " (a worker sets it; without one unset DS_REPORT_SOCKET)",
                       name, text != NULL ? text : "", max);
    }
    return 0;
}

static int read_place(struct place *p, struct err *err)
{
    uint64_t rank;
    uint64_t world;
    TRY(env_number("DS_JOB_ID", INT64_MAX, &p->job, err));
    TRY(env_number("DS_EPOCH", INT64_MAX, &p->epoch, err));
    TRY(env_number("WORLD_SIZE", UINT32_MAX, &world, err));
    TRY(env_number("RANK", UINT32_MAX, &rank, err));
    p->rank = (uint32_t)rank;
    p->world = (uint32_t)world;
    /* One unless told otherwise, whatever the machine has: results are reproducible for one number
     * of threads. */
    p->threads = 1;
    if (getenv("OMP_NUM_THREADS") != NULL) {
        TRY(env_number("OMP_NUM_THREADS", 1024, &p->threads, err));
        p->threads = p->threads > 0 ? p->threads : 1;
    }
    if (getenv("LOCAL_RANK") != NULL) {
        TRY(env_number("LOCAL_RANK", UINT32_MAX, &p->local_rank, err));
    }
    p->socket = getenv("DS_REPORT_SOCKET");
    p->ckpt_dir = getenv("DS_CHECKPOINT_DIR");
    p->tb_dir = getenv("DS_TENSORBOARD_DIR");
    p->resume_dir = getenv("DS_RESUME_PATH");
    p->flight_dir = getenv("DS_FLIGHT_DIR");
    p->master_addr = getenv("MASTER_ADDR");
    if (p->ckpt_dir == NULL) {
        return err_set(err, ERR_USAGE, "environment: DS_CHECKPOINT_DIR is not set");
    }
    if (p->resume_dir != NULL && p->resume_dir[0] == 0) {
        p->resume_dir = NULL;
    }
    return 0;
}

/* May a socket of this machine have that address? */
static bool is_local(const char *address)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *info = NULL;
    if (getaddrinfo(address, "0", &hints, &info) != 0) {
        return false;
    }
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool local = fd >= 0 && bind(fd, info->ai_addr, info->ai_addrlen) == 0;
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(info);
    return local;
}

/* The address under which the other ranks reach this one: what the worker says, or the one that a
 * packet to rank 0's machine would leave from. */
static void local_address(const char *master_addr, char *text, size_t bytes)
{
    const char *told = getenv("DS_ADDR");
    const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    struct addrinfo *info = NULL;
    if (told != NULL && strlen(told) < bytes && is_local(told)) {
        snprintf(text, bytes, "%s", told);
        return;
    }
    snprintf(text, bytes, "127.0.0.1");
    if (master_addr == NULL || getaddrinfo(master_addr, "9", &hints, &info) != 0) {
        return;
    }
    int fd = socket(info->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage self;
    socklen_t self_bytes = sizeof self;
    if (fd >= 0 && connect(fd, info->ai_addr, info->ai_addrlen) == 0 &&
        getsockname(fd, (struct sockaddr *)&self, &self_bytes) == 0) {
        getnameinfo((struct sockaddr *)&self, self_bytes, text, (socklen_t)bytes, NULL, 0,
                    NI_NUMERICHOST);
    }
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(info);
}

/* ---- the groups of ranks */

static int store_set(void *ctx, const char *key, const void *value, size_t len, struct err *err)
{
    return reporter_store_set(ctx, key, value, len, err);
}

static int store_get(void *ctx, const char *key, int64_t timeout_ms, void **value, size_t *len,
                     struct err *err)
{
    return reporter_store_get(ctx, key, timeout_ms, value, len, err);
}

/* How the ranks of this attempt meet. */
struct meeting {
    const struct comm_store *store;
    const char *address;
    struct flight *flight; /* or NULL */
};

static int create_group(struct comm **c, const struct meeting *at, const char *name, uint32_t which,
                        uint32_t rank, uint32_t size, struct err *err)
{
    char prefix[32];
    if (size == 1) {
        *c = comm_self_create();
        return 0;
    }
    snprintf(prefix, sizeof prefix, "%s%u", name, which);
    TRY(comm_gloo_create(c, at->store, prefix, rank, size, at->address, COMM_TIMEOUT_MS, err));
    *c = flight_comm(at->flight, *c, prefix);
    return 0;
}

/* Does the last stage use the embedding, and has it of its own? (tie.h) */
static bool is_tied(const struct model_config *config, const struct train_spec *spec)
{
    bool used = config->tie_word_embeddings || config->num_nextn_predict_layers > 0;
    uint32_t last = pipeline_stages(spec->pipeline_kind, spec->pipeline) - 1;
    return used && pipeline_rank_of(spec->pipeline_kind, spec->pipeline, last) != 0;
}

static int create_groups(struct train_options *t, const struct mesh *m, const struct meeting *at,
                         struct err *err)
{
    uint32_t column = mesh_batch_index(m); /* of stages that hand micro-batches on to each other */
    TRY(create_group(&t->world, at, "world", 0, m->rank, m->world, err));
    if (m->pipeline == 1) {
        t->batch = t->world;
    } else {
        TRY(create_group(&t->batch, at, "batch", m->pipeline_index, column, mesh_batch_ways(m),
                         err));
    }
    TRY(create_group(&t->expert, at, "expert", m->pipeline_index * m->data + m->data_index,
                     m->expert_index, m->expert, err));
    TRY(create_group(&t->data, at, "data", m->pipeline_index * m->expert + m->expert_index,
                     m->data_index, m->data, err));
    bool first = m->pipeline_index == 0, last = m->pipeline_index == m->pipeline - 1;
    if (is_tied(t->config, &t->spec->train) && (first || last)) {
        TRY(create_group(&t->ends, at, "ends", column, first ? 0 : 1, 2, err));
    }
    if (m->pipeline > 1) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "pipeline%u", column);
        TRY(comm_gloo_peers_create(&t->peers, at->store, prefix, m->pipeline_index, m->pipeline,
                                   at->address, COMM_TIMEOUT_MS, err));
        t->peers = flight_comm(at->flight, t->peers, prefix);
    }
    return 0;
}

static void destroy_groups(struct train_options *t)
{
    comm_destroy(t->peers);
    comm_destroy(t->ends);
    comm_destroy(t->data);
    comm_destroy(t->expert);
    if (t->batch != t->world) {
        comm_destroy(t->batch);
    }
    comm_destroy(t->world);
}

/* ---- */

static void catch_signals(void)
{
    const struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
}

/* plan: what memory was planned, for the message when it runs out. */
static int train_here(const struct place *place, const struct mesh *mesh, const char *plan,
                      struct jobspec *spec, struct model_config *config, const char *resume_dir,
                      struct err *err)
{
    struct reporter *reporter = NULL;
    char address[256];
    const struct op_table *op = NULL;
    const struct backend_place here = {place->world, (uint32_t)place->local_rank,
                                       (int)place->threads, plan};
    TRY(backend_open(spec->train.backend, here, &op, err));
    TRY(reporter_create(&reporter, place->socket, place->job, place->epoch, place->rank, err));
    struct train_options options = {
        .spec = spec,
        .config = config,
        .mesh = mesh,
        .op = profile_wanted() ? profile_wrap(op) : op,
        .ckpt_dir = place->ckpt_dir,
        .resume_dir = resume_dir,
        .tb_dir = place->rank == 0 ? place->tb_dir : NULL,
        .reporter = reporter,
        .epoch = place->epoch,
        .threads = (uint32_t)place->threads,
        .stop = &stop_signal,
    };
    const struct comm_store store = {reporter, store_set, store_get};
    local_address(place->master_addr, address, sizeof address);
    struct meeting at = {&store, address, NULL};
    if (place->flight_dir != NULL && place->world > 1) {
        struct err why = {0};
        if (flight_open(&at.flight, place->flight_dir, place->rank, place->world, &why) != 0) {
            log_warn("no flight recorder: %s", why.text);
        }
    }
    int rc = create_groups(&options, mesh, &at, err);
    if (rc == 0) {
        rc = train_run(&options, err);
    }
    if (rc == 0 && place->rank == 0) {
        log_info("peak memory of rank 0: %.1f MiB", (double)profile_memory_peak() / (1 << 20));
        profile_print();
    }
    destroy_groups(&options);
    flight_close(at.flight);
    reporter_destroy(reporter, DRAIN_MS);
    return rc;
}

int run_rank(const struct run_options *options, struct err *err)
{
    struct place place = {0};
    struct jobspec spec = {0};
    struct model_config config;
    catch_signals();
    TRY(read_place(&place, err));
    TRY(spec_file_load(&spec, &config, options->spec_path, options->set, options->set_count, err));
    const char *resume = options->resume != NULL && strcmp(options->resume, "auto") != 0
                             ? options->resume
                             : place.resume_dir;
    struct mesh mesh;
    int rc = mesh_init(&mesh, place.world, place.rank, spec.train.pipeline, spec.train.expert, err);
    if (rc == 0) {
        char *plan = memory_text(&spec.train, &config, place.world, mesh.pipeline_index);
        rc = train_here(&place, &mesh, plan, &spec, &config, resume, err);
        free(plan);
    }
    jobspec_fini(&spec);
    return rc;
}
