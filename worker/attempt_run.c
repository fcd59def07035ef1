/* From an order to a running shim. Everything that may block is done on the thread pool, in two
 * pieces of work: making the order durable, and, once that is acknowledged, starting the shim. The
 * shim's socket listens before the shim is started, so that a worker that is restarted at any
 * instant either finds no socket (no process was started) or can connect (it was). */
#include "worker/attempt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt_dir.h"
#include "worker/attempt_env.h"
#include "worker/cgroup.h"
#include "worker/ckpt_order.h"
#include "worker/log_keep.h"
#include "worker/rank_server.h"
#include "worker/report.h"
#include "worker/shim.h"
#include "worker/store_keep.h"

#define FRESH_MS 5000 /* a fraction of a lease */

extern char **environ; /* what ranks inherit */

/* ---- accepting */

void attempt_attach(struct worker *w, struct agent_attempt *a, Ds__AttemptStart *order)
{
    struct attempt *t = mem_alloc(sizeof *t);
    t->worker = w;
    t->a = a;
    t->order = order;
    t->dir = attempt_dir_path(w->config->state_dir, a->job, a->epoch);
    t->log_dir = attempt_log_path(w->config->state_dir, a->job, a->epoch);
    t->work.data = t;
    a->shell = t;
}

static void persist(uv_work_t *work)
{
    struct attempt *t = work->data;
    t->work_code = attempt_dir_accept(t->dir, &t->order_frame, &t->work_err);
}

static void on_persisted(uv_work_t *work, int status)
{
    (void)status;
    struct attempt *t = work->data;
    worker_dequeued(t->worker);
    buf_fini(&t->order_frame);
    if (t->work_code != 0) {
        log_error("job %" PRIu64 " epoch %" PRIu64 " is not accepted: %s", t->a->job, t->a->epoch,
                  t->work_err.text);
    }
    agent_persisted(t->worker->agent, t->a, t->work_code,
                    t->work_code != 0 ? t->work_err.text : "");
}

void attempt_persist(struct attempt *t)
{
    rpc_pack(&t->order_frame, RPC_ATTEMPT_START, FRAME_REQUEST, 0, &t->order->base);
    worker_queue(t->worker, &t->work, persist, on_persisted);
}

/* ---- launching */

char *attempt_cgroup(const struct attempt *t)
{
    const struct worker *w = t->worker;
    return w->cgroup == NULL ? NULL
                             : mem_printf("%s/ds-%s-%" PRIu64 "-%" PRIu64, w->cgroup,
                                          w->config->name, t->a->job, t->a->epoch);
}

/* A file in the attempt folder for the ranks to read. */
static int write_for_ranks(const struct attempt *t, const char *name, const char *text,
                           struct err *err)
{
    TRY(attempt_dir_write(t->dir, name, text, strlen(text), err));
    if (!t->becomes_user) {
        return 0;
    }
    char *path = mem_printf("%s/%s", t->dir, name);
    int rc = chown(path, t->user.uid, t->user.gid) == 0
                 ? 0
                 : err_set_errno(err, "cannot give %s to its user", path);
    free(path);
    return rc;
}

static int write_spec(const struct attempt *t, struct jobspec *spec, struct err *err)
{
    if (t->order->model_json != NULL && spec->has_train) {
        TRY(write_for_ranks(t, "model.json", t->order->model_json, err));
        free(spec->train.model);
        spec->train.model = mem_printf("%s/model.json", t->dir);
    }
    char *json = jobspec_to_json(spec);
    int rc = write_for_ranks(t, ATTEMPT_SPEC_FILE, json, err);
    free(json);
    return rc;
}

/* Where the ranks' flight recorders are: theirs to write. */
static int make_flight_folder(const struct attempt *t, struct err *err)
{
    char *path = mem_printf("%s/" ATTEMPT_FLIGHT_DIR, t->dir);
    int rc = 0;
    if ((mkdir(path, 0700) != 0 && errno != EEXIST) ||
        (t->becomes_user && chown(path, t->user.uid, t->user.gid) != 0)) {
        rc = err_set_errno(err, "cannot make the folder %s", path);
    }
    free(path);
    return rc;
}

static int make_log_folder(const struct attempt *t, struct err *err)
{
    char *parent = mem_strdup(t->log_dir);
    *strrchr(parent, '/') = 0;
    int rc = 0;
    if ((mkdir(parent, 0700) != 0 && errno != EEXIST) ||
        (mkdir(t->log_dir, 0700) != 0 && errno != EEXIST)) {
        rc = err_set_errno(err, "cannot create the log folder %s", t->log_dir);
    }
    free(parent);
    return rc;
}

/* Of a file without a name, from its beginning: nobody but the shim reads it, once. */
static int make_launch(const struct attempt *t, const struct jobspec *spec, int *fd,
                       struct err *err)
{
    const struct worker *w = t->worker;
    const struct config *config = w->config;
    struct attempt_facts facts = {
        .dir = t->dir,
        .report_socket = w->report_socket,
        .addr = t->addr,
        .dstrain = config->dstrain,
        .cores = w->cores,
        .nvidia = w->nvidia,
        .user = t->becomes_user ? &t->user : NULL,
    };
    Ds__ShimLaunch launch = DS__SHIM_LAUNCH__INIT;
    launch.job = t->order->job;
    launch.epoch = t->order->epoch;
    launch.boot_id = (char *)w->boot_id;
    launch.log_dir = t->log_dir;
    launch.rank_first = t->order->rank_first;
    launch.rank_count = attempt_rank_count(t->order);
    launch.orphan_timeout_ms = config->orphan_timeout_ms;
    launch.log_file_bytes = config->log_file_mib << 20;
    launch.log_files = config->log_files;
    launch.cgroup = attempt_cgroup(t);
    attempt_env_fill(&launch, t->order, spec, &facts, environ);

    size_t bytes = ds__shim_launch__get_packed_size(&launch);
    uint8_t *packed = mem_alloc(bytes);
    ds__shim_launch__pack(&launch, packed);
    *fd = memfd_create("launch", MFD_CLOEXEC);
    int rc = *fd < 0 ? err_set_errno(err, "cannot make a file in memory")
                     : file_write_all(*fd, packed, bytes, err);
    free(packed);
    free(launch.cgroup);
    attempt_env_free(&launch);
    return rc;
}

/* On success work_fd is connected to the shim. */
static int start_shim(struct attempt *t, int launch, struct err *err)
{
    int listener = attempt_dir_listen(t->dir, err);
    if (listener < 0) {
        return err->code;
    }
    int rc = 0;
    t->work_fd = attempt_dir_connect(t->dir);
    if (t->work_fd < 0) {
        rc = err_set_errno(err, "cannot connect to %s/" SHIM_SOCKET_FILE, t->dir);
    }
    if (rc == 0) {
        rc = nursery_launch(&t->worker->nursery, t->dir, listener, launch, err);
    }
    if (rc != 0 && t->work_fd >= 0) {
        close(t->work_fd);
    }
    close(listener);
    return rc;
}

static int check_order(const struct worker *w, const Ds__AttemptStart *order, struct err *err)
{
    uint32_t count = attempt_rank_count(order);
    if (order->rank_first > order->world_size || order->world_size - order->rank_first < count ||
        order->node_rank >= order->node_count) {
        return err_set(err, ERR_INVALID,
                       "%" PRIu32 " ranks from %" PRIu32 " on, of %" PRIu32 ", make no sense",
                       count, order->rank_first, order->world_size);
    }
    for (size_t i = 0; i < order->n_gpu_index; i++) {
        if (order->gpu_index[i] >= w->inventory.count) {
            return err_set(err, ERR_INVALID,
                           "this node has no accelerator %" PRIu32
                           ", it has %zu (was one taken out?)",
                           order->gpu_index[i], w->inventory.count);
        }
    }
    return 0;
}

static int choose_user(struct attempt *t, struct err *err)
{
    t->uid = geteuid();
    if (t->uid != 0) {
        return 0;
    }
    user_fini(&t->user);
    TRY(user_find(&t->user, t->order->user, err));
    t->uid = t->user.uid;
    t->becomes_user = t->uid != 0;
    return 0;
}

static int prepare(struct attempt *t, int *launch, struct err *err)
{
    TRY(check_order(t->worker, t->order, err));
    struct jobspec spec = {0};
    const Ds__AttemptStart *order = t->order;
    int rc = jobspec_parse(&spec, order->spec, strlen(order->spec), "spec", t->dir, NULL, 0, err);
    if (rc == 0 && order->resume != NULL) {
        /* The coordinator committed it; the worker that was to publish it may have died first. */
        rc = ckpt_publish(order->resume->path, order->resume->manifest, err);
        if (rc != 0) {
            err_wrap(err, "checkpoint to resume from");
        }
    }
    if (rc == 0) {
        rc = choose_user(t, err);
    }
    if (rc == 0) {
        rc = make_log_folder(t, err);
    }
    if (rc == 0 && spec.has_train) {
        rc = make_flight_folder(t, err);
    }
    if (rc == 0) {
        rc = write_spec(t, &spec, err);
    }
    if (rc == 0) {
        rc = make_launch(t, &spec, launch, err);
    }
    jobspec_fini(&spec);
    return rc;
}

static void launch(uv_work_t *work)
{
    struct attempt *t = work->data;
    int launch = -1;
    t->work_code = prepare(t, &launch, &t->work_err);
    if (t->work_code == 0) {
        t->work_code = start_shim(t, launch, &t->work_err);
    }
    if (launch >= 0) {
        close(launch);
    }
}

static void on_launched(uv_work_t *work, int status)
{
    (void)status;
    struct attempt *t = work->data;
    worker_dequeued(t->worker);
    if (t->work_code != 0) {
        log_error("job %" PRIu64 " epoch %" PRIu64 " cannot be started: %s", t->a->job, t->a->epoch,
                  t->work_err.text);
        agent_launch_failed(t->worker->agent, t->a, t->work_err.text, clock_wall_ms());
    } else if (t->worker->stage == WORKER_CLOSING) {
        close(t->work_fd); /* the next worker finds it */
    } else {
        attempt_shim_open(t, t->work_fd);
    }
}

void attempt_launch(struct attempt *t)
{
    const char *addr = t->worker->config->addr;
    if (addr == NULL) {
        addr = link_local_address(t->worker->link);
    }
    free(t->addr);
    t->addr = mem_strdup(addr != NULL ? addr : "127.0.0.1");
    worker_queue(t->worker, &t->work, launch, on_launched);
}

/* ---- after a restart */

/* Accepted so short a time ago that the coordinator still counts on it, and no process was started:
 * the start goes on. One that is older may by now run elsewhere. */
static bool is_fresh_and_unstarted(const struct attempt *t)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/" SHIM_SOCKET_FILE, t->dir);
    if (access(path, F_OK) == 0) {
        return false;
    }
    snprintf(path, sizeof path, "%s/" SHIM_STATUS_FILE, t->dir);
    if (access(path, F_OK) == 0) {
        return false; /* it ended before it was started */
    }
    snprintf(path, sizeof path, "%s/" ATTEMPT_ORDER_FILE, t->dir);
    int64_t now = clock_wall_ms();
    return stat(path, &st) == 0 && now - (int64_t)st.st_mtim.tv_sec * 1000 < FRESH_MS;
}

static void adopt(void *ctx, uint64_t job, uint64_t epoch)
{
    struct worker *w = ctx;
    Ds__AttemptStart *order = NULL;
    struct err err;
    char *dir = attempt_dir_path(w->config->state_dir, job, epoch);
    int rc = attempt_dir_read_order(dir, &order, &err);
    if (rc != 0 || order->job != job || order->epoch != epoch) {
        /* Killed before the order was durable: it was never acknowledged, and nothing was started.
         */
        log_warn("removing %s, which was never accepted: %s", dir,
                 rc != 0 ? err.text : "another's order");
        file_remove_tree(dir, NULL);
        rpc_free(order != NULL ? &order->base : NULL);
        free(dir);
        return;
    }
    struct agent_attempt *a =
        agent_adopt(w->agent, job, epoch, order->rank_first, attempt_rank_count(order));
    attempt_attach(w, a, order);
    struct attempt *t = a->shell;
    t->uid = attempt_dir_uid(dir);
    char store[4096];
    snprintf(store, sizeof store, "%s/" STORE_KEEP_FILE, dir);
    if (access(store, F_OK) == 0) {
        t->store = store_keep_create(dir);
    }
    int fd = attempt_dir_connect(dir);
    if (fd >= 0) {
        log_info("job %" PRIu64 " epoch %" PRIu64 " goes on: its shim is there", job, epoch);
        attempt_shim_open(t, fd);
    } else if (is_fresh_and_unstarted(t)) {
        agent_launch_adopted(w->agent, a);
    } else {
        attempt_shim_gone(t);
    }
    free(dir);
}

int attempt_adopt_all(struct worker *w, struct err *err)
{
    return attempt_dir_each(w->config->state_dir, adopt, w, err);
}

/* ---- the end */

void attempt_record_end(const struct attempt *t)
{
    struct report r;
    struct buf frame = {0};
    struct err err;
    Ds__ShimStatus status = DS__SHIM_STATUS__INIT;
    report_init_end(&r, t->a);
    status.job = t->a->job;
    status.epoch = t->a->epoch;
    status.boot_id = t->worker->boot_id;
    status.report = &r.message;
    rpc_pack(&frame, RPC_SHIM_STATUS, FRAME_ONEWAY, 0, &status.base);
    char *path = mem_printf("%s/" SHIM_STATUS_FILE, t->dir);
    if (file_write_durable(path, frame.data, frame.len, 0600, &err) != 0) {
        log_error("job %" PRIu64 " epoch %" PRIu64
                  " has ended, but that could not be made durable: %s",
                  t->a->job, t->a->epoch, err.text);
    }
    free(path);
    buf_fini(&frame);
    report_fini(&r);
}

void attempt_free(struct attempt *t)
{
    if (t == NULL) {
        return;
    }
    conn_destroy(t->shim);
    store_keep_destroy(t->store);
    rpc_free(&t->order->base);
    buf_fini(&t->order_frame);
    free(t->dir);
    free(t->log_dir);
    free(t->addr);
    user_fini(&t->user);
    t->a->shell = NULL;
    free(t);
}

static void remove_folder(uv_work_t *work)
{
    struct attempt *t = work->data;
    t->work_code = file_remove_tree(t->dir, &t->work_err);
    char *cgroup = attempt_cgroup(t);
    if (cgroup != NULL) {
        cgroup_remove(cgroup); /* its shim could not, or was killed */
    }
    free(cgroup);
    t->log_bytes = log_folder_bytes(t->log_dir);
}

static void on_folder_removed(uv_work_t *work, int status)
{
    (void)status;
    struct attempt *t = work->data;
    struct worker *w = t->worker;
    struct agent_attempt *a = t->a;
    worker_dequeued(w);
    if (t->work_code != 0) {
        log_warn("job %" PRIu64 " epoch %" PRIu64 " is forgotten, but: %s", a->job, a->epoch,
                 t->work_err.text);
    }
    worker_logs_ended(w, &(struct log_entry){a->job, a->epoch, t->log_bytes, clock_wall_ms()});
    attempt_free(t);
    agent_removed(w->agent, a);
}

void attempt_remove(struct attempt *t)
{
    conn_destroy(t->shim);
    t->shim = NULL;
    rank_server_forget(t->worker->ranks, t->a);
    worker_queue(t->worker, &t->work, remove_folder, on_folder_removed);
}
