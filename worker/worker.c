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
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/version.h"
#include "worker/attempt.h"
#include "worker/cgroup.h"
#include "worker/rank_server.h"
#include "worker/report.h"

#define RETRY_MS       2000
#define LEAVE_GRACE_MS 10000 /* TERM to KILL when Ctrl-C ends worker and ranks */

/* ---- the term */

static char *term_path(const struct worker *w)
{
    return mem_printf("%s/term", w->config->state_dir);
}

static int read_term(struct worker *w, struct err *err)
{
    char *path = term_path(w);
    struct buf text = {0};
    int rc = file_read(path, 64, &text, err);
    if (rc == ERR_NOT_FOUND) {
        rc = 0;
    } else if (rc == 0) {
        char *end;
        w->term = strtoull(buf_cstr(&text), &end, 10);
        if (end == (char *)text.data || *end != '\n') {
            rc = err_set(err, ERR_CORRUPT,
                         "%s is damaged (write the newest term, see `dsctl cluster status`, and a "
                         "newline into it)",
                         path);
        }
    }
    buf_fini(&text);
    free(path);
    return rc;
}

int worker_see_term(struct worker *w, uint64_t term, struct err *err)
{
    if (term == w->term) {
        return 0;
    }
    if (term < w->term) {
        return err_set(err, ERR_STALE,
                       "coordinator of term %" PRIu64 ", but %" PRIu64
                       " was here (an old one, or restored from an old backup?)",
                       term, w->term);
    }
    char *path = term_path(w);
    char text[32];
    int len = snprintf(text, sizeof text, "%" PRIu64 "\n", term);
    int rc = file_write_durable(path, text, (size_t)len, 0600, err);
    free(path);
    if (rc == 0) {
        w->term = term;
    }
    return rc;
}

/* ---- telling the coordinator */

/* Which report an acknowledgement is for. The attempt may be forgotten by then. */
struct ack {
    struct worker *worker;
    uint64_t job, epoch, version;
};

static void on_acked(void *ctx, int code, const char *text, const struct frame *f)
{
    (void)f;
    struct ack *ack = ctx;
    struct agent_attempt *a = agent_find(ack->worker->agent, ack->job, ack->epoch);
    if (code != ERR_UNREACHABLE) {
        if (code != 0) {
            log_warn("job %" PRIu64 " epoch %" PRIu64 ": the coordinator refuses the report: %s",
                     ack->job, ack->epoch, text);
        }
        if (a != NULL) {
            agent_acked(ack->worker->agent, a, ack->version);
        }
    }
    free(ack);
}

static void send_report(struct worker *w, const struct agent_attempt *a, uint64_t version)
{
    struct report r;
    struct ack *ack = mem_alloc(sizeof *ack);
    *ack = (struct ack){w, a->job, a->epoch, version};
    report_init(&r, a);
    link_request(w->link, RPC_ATTEMPT_REPORT, &r.message.base, on_acked, ack);
    report_fini(&r);
}

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
        send_report(w, a, action->version);
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

/* ---- the link */

struct registration {
    struct report *reports;
    Ds__AttemptReport **report_list;
    Ds__WorkerGpu *gpus;
    Ds__WorkerGpu **gpu_list;
    size_t reports_count;
};

static void registration_fini(struct registration *r)
{
    for (size_t i = 0; i < r->reports_count; i++) {
        report_fini(&r->reports[i]);
    }
    free(r->reports);
    free(r->report_list);
    free(r->gpus);
    free(r->gpu_list);
    *r = (struct registration){0};
}

static void fill_gpus(const struct worker *w, struct registration *r, Ds__WorkerRegister *m)
{
    size_t count = w->inventory.count;
    r->gpus = mem_alloc_array(count, sizeof *r->gpus);
    r->gpu_list = mem_alloc_array(count, sizeof *r->gpu_list);
    for (size_t i = 0; i < count; i++) {
        struct inventory_gpu *g = &w->inventory.gpus[i];
        r->gpus[i] = (Ds__WorkerGpu)DS__WORKER_GPU__INIT;
        r->gpus[i].index = g->index;
        r->gpus[i].uuid = g->uuid;
        r->gpus[i].model = g->model;
        r->gpus[i].has_memory_bytes = g->memory_bytes > 0;
        r->gpus[i].memory_bytes = g->memory_bytes;
        r->gpus[i].health = g->health;
        r->gpu_list[i] = &r->gpus[i];
    }
    m->gpus = r->gpu_list;
    m->n_gpus = count;
}

static void fill_attempts(const struct worker *w, struct registration *r, Ds__WorkerRegister *m)
{
    size_t count = agent_count(w->agent);
    r->reports = mem_alloc_array(count, sizeof *r->reports);
    r->report_list = mem_alloc_array(count, sizeof *r->report_list);
    for (size_t i = 0; i < count; i++) {
        const struct agent_attempt *a = agent_at(w->agent, i);
        if (agent_phase(a) > 0) {
            report_init(&r->reports[r->reports_count], a);
            r->report_list[r->reports_count] = &r->reports[r->reports_count].message;
            r->reports_count++;
        }
    }
    m->attempts = r->report_list;
    m->n_attempts = r->reports_count;
}

static void on_greeted(void *owner)
{
    struct worker *w = owner;
    struct registration r = {0};
    char version[] = DS_VERSION;
    Ds__WorkerRegister m = DS__WORKER_REGISTER__INIT;
    agent_registering(w->agent);
    m.name = w->config->name;
    m.boot_id = w->boot_id;
    m.version = version;
    m.term_seen = w->term;
    m.addr = w->config->addr;
    fill_gpus(w, &r, &m);
    fill_attempts(w, &r, &m);
    link_register(w->link, &m);
    registration_fini(&r);
}

static int on_registered(void *owner, const Ds__WorkerRegisterReply *reply, struct err *err)
{
    struct worker *w = owner;
    TRY(worker_see_term(w, reply->term, err));
    log_info("registered as %s with the coordinator at %s, term %" PRIu64, w->config->name,
             w->config->server, reply->term);
    /* What ranks said goes first: the coordinator may take a report as the end of an attempt. */
    rank_server_link_up(w->ranks);
    agent_registered(w->agent);
    return 0;
}

static void on_link_lost(void *owner)
{
    struct worker *w = owner;
    agent_link_lost(w->agent);
}

static void on_order(void *owner, uint64_t token, const struct frame *f)
{
    struct worker *w = owner;
    if (w->stage == WORKER_SERVING || f->method != RPC_ATTEMPT_START) {
        worker_order(w, token, f);
    } else {
        link_answer(w->link, token, ERR_AGAIN, "this worker is being stopped");
    }
}

static const struct link_ops link_ops = {on_greeted, on_registered, on_link_lost, on_order};

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

/* Held as long as the process lives; a killed worker's is gone with it. */
static int lock_state(struct worker *w, struct err *err)
{
    char *path = mem_printf("%s/lock", w->config->state_dir);
    int rc = 0;
    w->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (w->lock_fd < 0) {
        rc = err_set_errno(err, "cannot open %s", path);
    } else if (flock(w->lock_fd, LOCK_EX | LOCK_NB) != 0) {
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
    log_keep_init(&w->logs, config->log_total_mib << 20);
    TRY(choose_report_socket(w, err));
    TRY(make_state_folder(w, err));
    TRY(lock_state(w, err));
    TRY(read_term(w, err));
    TRY(read_boot_id(w, err));
    look_around(w);
    uv_loop_init(&w->loop);
    w->loop_open = true;
    start_handles(w);
    w->link = link_create(&w->loop, config->server, &link_ops, w);
    int rc = rank_server_create(&w->ranks, w, err);
    if (rc == 0) {
        rc = attempt_adopt_all(w, err);
    }
    if (rc != 0) {
        close_all(w);
        uv_run(&w->loop, UV_RUN_DEFAULT);
        return rc;
    }
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
    inventory_fini(&w->inventory);
    log_keep_fini(&w->logs);
    free(w->report_socket);
    free(w->cgroup);
    if (w->lock_fd >= 0) {
        close(w->lock_fd);
    }
}
