#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt.h"
#include "worker/cgroup.h"
#include "worker/rank_server.h"
#include "worker/session.h"

#define RETRY_MS       2000
#define LOCK_MS        1000
#define LEAVE_GRACE_MS 10000 /* TERM to KILL when Ctrl-C ends worker and ranks */

/* ---- what the agent wants */

static void act(struct worker *w, const struct agent_action *action)
{
    struct agent_attempt *a = action->attempt;
    struct attempt *t = a != NULL ? a->shell : NULL;
    switch (action->act) {
    case AGENT_PERSIST:
        attempt_persist(t);
        break;
    case AGENT_LAUNCH:
        attempt_launch(t);
        break;
    case AGENT_STOP:
        log_info("job %" PRIu64 " epoch %" PRIu64 ": stopping, KILL in %" PRIu64 " ms: %s", a->job,
                 a->epoch, a->stop_grace_ms, a->stop_reason);
        rank_server_stop(w->ranks, a, a->stop_reason);
        attempt_shim_stop(t);
        break;
    case AGENT_RECORD:
        attempt_record_end(t);
        agent_recorded(w->agent, a);
        break;
    case AGENT_REPORT:
        session_report(w, a, action->version);
        break;
    case AGENT_REMOVE:
        if (t != NULL) {
            attempt_remove(t);
        } else {
            agent_removed(w->agent, a);
        }
        break;
    case AGENT_ANSWER:
        link_answer(w->link, action->token, action->code, action->text);
        break;
    }
}

static void close_all(struct worker *w);

/* Ctrl-C: leave when every rank is gone and the coordinator, if there is one, knows. */
static bool may_leave(const struct worker *w)
{
    for (size_t i = 0; i < agent_count(w->agent); i++) {
        const struct agent_attempt *a = agent_at(w->agent, i);
        if (a->stage != AGENT_ENDED || (link_is_up(w->link) && a->acked < a->version)) {
            return false;
        }
    }
    return w->works == 0;
}

static void on_pump(uv_prepare_t *prepare)
{
    struct worker *w = prepare->data;
    struct agent_action action;
    while (agent_next(w->agent, &action)) {
        act(w, &action);
    }
    if (w->stage == WORKER_STOPPING_RANKS && may_leave(w)) {
        close_all(w);
    }
}

/* ---- work on the thread pool */

void worker_queue(struct worker *w, uv_work_t *request, uv_work_cb work, uv_after_work_cb done)
{
    w->works++;
    uv_queue_work(&w->loop, request, work, done);
}

void worker_dequeued(struct worker *w)
{
    w->works--;
}

/* ---- processes that do not die */

static void on_retry(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    for (size_t i = 0; i < agent_count(w->agent); i++) {
        struct attempt *t = agent_at(w->agent, i)->shell;
        if (t != NULL && t->clean_again) {
            attempt_shim_gone(t);
        }
    }
}

void worker_retry(struct worker *w)
{
    uv_timer_start(&w->retry, on_retry, RETRY_MS, 0);
}

/* ---- logs of ended attempts */

struct prune {
    uv_work_t work;
    struct worker *worker;
    struct log_entry entry;
};

static void prune(uv_work_t *work)
{
    struct prune *p = work->data;
    log_folder_remove(p->worker->config->state_dir, p->entry.job, p->entry.epoch);
}

static void on_pruned(uv_work_t *work, int status)
{
    (void)status;
    struct prune *p = work->data;
    worker_dequeued(p->worker);
    free(p);
}

static void prune_excess(struct worker *w)
{
    struct log_entry entry;
    while (log_keep_take_excess(&w->logs, &entry)) {
        struct prune *p = mem_alloc(sizeof *p);
        *p = (struct prune){.worker = w, .entry = entry};
        p->work.data = p;
        worker_queue(w, &p->work, prune, on_pruned);
    }
}

void worker_logs_ended(struct worker *w, const struct log_entry *entry)
{
    log_keep_add(&w->logs, entry);
    if (w->stage != WORKER_CLOSING) {
        prune_excess(w);
    }
}

/* Logs of attempts that are still known count when these are forgotten. */
static bool is_forgotten(void *ctx, uint64_t job, uint64_t epoch)
{
    struct worker *w = ctx;
    return agent_find(w->agent, job, epoch) == NULL;
}

/* ---- starting */

static int make_state_folder(struct worker *w, struct err *err)
{
    /* Ranks of other users pass through to the report socket and to their own spec; logs they read
     * through the coordinator. */
    static const struct {
        const char *name;
        unsigned mode;
    } parts[] = {{"", 0711}, {"/attempts", 0711}, {"/logs", 0700}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *path = mem_printf("%s%s", w->config->state_dir, parts[i].name);
        int rc = file_mkdirs(path, parts[i].mode, err);
        free(path);
        TRY(rc);
    }
    return 0;
}

/* Of a worker that was killed just when it started a program: the child has the lock until it
 * executes. */
static int wait_for_lock(int fd)
{
    int rc = flock(fd, LOCK_EX | LOCK_NB);
    for (int64_t end_ms = clock_boot_ms() + LOCK_MS; rc != 0 && clock_boot_ms() < end_ms;) {
        clock_sleep_ms(10);
        rc = flock(fd, LOCK_EX | LOCK_NB);
    }
    return rc;
}

/* Held as long as the process lives; a killed worker's is gone with it. */
static int lock_state(struct worker *w, struct err *err)
{
    char *path = mem_printf("%s/lock", w->config->state_dir);
    int rc = 0;
    w->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (w->lock_fd < 0) {
        rc = err_set_errno(err, "cannot open %s", path);
    } else if (wait_for_lock(w->lock_fd) != 0) {
        rc = err_set(err, ERR_CONFLICT, "another dsworkerd uses %s (give each its own --state-dir)",
                     w->config->state_dir);
    }
    free(path);
    return rc;
}

static int read_boot_id(struct worker *w, struct err *err)
{
    struct buf text = {0};
    int rc = file_read("/proc/sys/kernel/random/boot_id", 4096, &text, err);
    if (rc == 0) {
        snprintf(w->boot_id, sizeof w->boot_id, "%s", buf_cstr(&text));
        w->boot_id[strcspn(w->boot_id, "\n")] = 0;
    }
    buf_fini(&text);
    return rc;
}

static int choose_report_socket(struct worker *w, struct err *err)
{
    struct sockaddr_un un;
    w->report_socket = mem_printf("%s/report.sock", w->config->state_dir);
    if (strlen(w->report_socket) >= sizeof un.sun_path) {
        return err_set(err, ERR_CONFIG,
                       "the path of a socket has at most %zu bytes, which %s exceeds (choose a "
                       "shorter --state-dir)",
                       sizeof un.sun_path - 1, w->report_socket);
    }
    return 0;
}

static void look_around(struct worker *w)
{
    struct err note;
    cpu_set_t set;
    char group[PATH_MAX];
    inventory_init(&w->inventory, w->config, &note);
    if (note.text[0] != 0) {
        log_warn("%s", note.text);
    }
    w->nvidia = w->config->accelerators_auto && w->config->accelerator_count == 0;
    w->cores = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    w->cgroup = cgroup_find_own(group, sizeof group) ? mem_strdup(group) : NULL;
    if (access(w->config->dsshim, X_OK) != 0) {
        log_warn("%s is not there: no job can start", w->config->dsshim);
    }
}

/* What the coordinator knows of accelerators comes with a registration. */
static void on_gpus_changed(void *owner)
{
    struct worker *w = owner;
    if (gpu_watch_take(w->watch, &w->inventory) && link_is_up(w->link)) {
        link_drop(w->link,
                  "the condition of an accelerator changed, which a new registration tells");
    }
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct worker *w = handle->data;
    if (signum == SIGTERM || w->stage == WORKER_STOPPING_RANKS) {
        log_info("leaving; ranks that run go on");
        close_all(w);
    } else if (w->stage == WORKER_SERVING) {
        log_info("stopping all ranks, then leaving (once more: leave at once)");
        w->stage = WORKER_STOPPING_RANKS;
        agent_stop_all(w->agent, LEAVE_GRACE_MS, "the worker is being stopped");
    }
}

static void start_handles(struct worker *w)
{
    static const int signums[2] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&w->loop, &w->signals[i]);
        w->signals[i].data = w;
        uv_signal_start(&w->signals[i], on_signal, signums[i]);
    }
    uv_timer_init(&w->loop, &w->retry);
    w->retry.data = w;
    uv_prepare_init(&w->loop, &w->pump);
    w->pump.data = w;
    uv_prepare_start(&w->pump, on_pump);
}

int worker_start(struct worker *w, const struct config *config, struct err *err)
{
    *w = (struct worker){.config = config, .lock_fd = -1};
    /* Shims are nobody's to wait for: how they end is in their status files. */
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    w->agent = agent_create();
    nursery_init(&w->nursery, config->dsshim);
    log_keep_init(&w->logs, config->log_total_mib << 20);
    TRY(choose_report_socket(w, err));
    TRY(make_state_folder(w, err));
    TRY(lock_state(w, err));
    TRY(session_read_term(w, err));
    TRY(read_boot_id(w, err));
    look_around(w);
    uv_loop_init(&w->loop);
    w->loop_open = true;
    start_handles(w);
    w->link = link_create(&w->loop, config->server, &session_link_ops, w);
    int rc = rank_server_create(&w->ranks, w, err);
    if (rc == 0) {
        rc = attempt_adopt_all(w, err);
    }
    if (rc != 0) {
        close_all(w);
        uv_run(&w->loop, UV_RUN_DEFAULT);
        return rc;
    }
    w->watch = gpu_watch_start(&w->loop, config, &w->inventory, on_gpus_changed, w);
    log_keep_scan(&w->logs, config->state_dir, is_forgotten, w);
    prune_excess(w);
    log_info("%s: %zu accelerators, %zu attempts found, state in %s%s", config->name,
             w->inventory.count, agent_count(w->agent), config->state_dir,
             w->cgroup != NULL ? ", with control groups" : "");
    link_start(w->link);
    return 0;
}

/* ---- ending */

static void close_all(struct worker *w)
{
    if (w->stage == WORKER_CLOSING) {
        return;
    }
    w->stage = WORKER_CLOSING;
    gpu_watch_stop(w->watch);
    link_destroy(w->link);
    rank_server_destroy(w->ranks);
    for (size_t i = 0; i < agent_count(w->agent); i++) {
        struct attempt *t = agent_at(w->agent, i)->shell;
        if (t != NULL) {
            conn_destroy(t->shim);
            t->shim = NULL;
        }
    }
    uv_close((uv_handle_t *)&w->signals[0], NULL);
    uv_close((uv_handle_t *)&w->signals[1], NULL);
    uv_close((uv_handle_t *)&w->retry, NULL);
    uv_close((uv_handle_t *)&w->pump, NULL);
}

void worker_run(struct worker *w)
{
    uv_run(&w->loop, UV_RUN_DEFAULT);
}

void worker_fini(struct worker *w)
{
    for (size_t i = 0; w->agent != NULL && i < agent_count(w->agent); i++) {
        attempt_free(agent_at(w->agent, i)->shell);
    }
    agent_destroy(w->agent);
    if (w->loop_open) {
        uv_loop_close(&w->loop);
    }
    nursery_fini(&w->nursery);
    inventory_fini(&w->inventory);
    log_keep_fini(&w->logs);
    free(w->report_socket);
    free(w->cgroup);
    if (w->lock_fd >= 0) {
        close(w->lock_fd);
    }
}
