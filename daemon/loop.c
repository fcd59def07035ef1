/* A turn of the loop: libuv reads the sockets, handlers give inputs to the pump; then, once for all
 * of them, the pump commits and releases its effects, connections that had to wait are served, and
 * everything is sent. The same happens before the loop goes to sleep, for inputs that came from
 * timers and closed connections. */
#include "daemon/dsd.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/notify.h"
#include "daemon/prices.h"
#include "daemon/rpc.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/version.h"

#define HOUSE_MS          1000
#define CLOCK_STEP_MS     2000
#define CORE_TIMER_MS_MAX 60000
/* Between two ticks the core asked for without naming a later time: a mistake of ours must not eat
 * a processor. */
#define CORE_TIMER_MS_MIN 1
#define WARM_ROWS         500 /* of the ledger, summed up in some tenths of a ms */
#define CHECK_NICE        10

int64_t dsd_now_ms(const struct dsd *d)
{
    return d->clock_base_ms + clock_boot_ms();
}

void dsd_input(struct dsd *d, struct input *in, struct pending *p)
{
    in->now_ms = dsd_now_ms(d);
    in->token = p != NULL ? slotmap_add(&d->pending, p) : 0;
    pump_input(d->pump, in);
    d->stepped = true;
}

/* ------------------------------------------------------------------ a turn */

static void commit(struct dsd *d)
{
    struct err err = {0};
    int rc = pump_flush(d->pump, &err);
    if (rc != 0) {
        /* What was decided is not durable and must not be seen by anybody: no reply, no farewell.
         * The restart reloads. */
        log_error("cannot store what was decided: %s (exiting; nothing acknowledged is lost)",
                  err.text);
        _exit(err_exit_status(rc));
    }
}

static void on_core_timer(uv_timer_t *timer)
{
    dsd_input(timer->data, &(struct input){.kind = INPUT_TICK}, NULL);
}

static void arm_core_timer(struct dsd *d)
{
    int64_t at_ms = core_deadline(d->core);
    if (at_ms == INT64_MAX) {
        uv_timer_stop(&d->core_timer);
        return;
    }
    int64_t wait_ms = at_ms - dsd_now_ms(d);
    if (wait_ms < CORE_TIMER_MS_MIN) {
        wait_ms = CORE_TIMER_MS_MIN;
    } else if (wait_ms > CORE_TIMER_MS_MAX) {
        wait_ms = CORE_TIMER_MS_MAX; /* it asks again */
    }
    uv_timer_start(&d->core_timer, on_core_timer, (uint64_t)wait_ms, 0);
}

static void turn(struct dsd *d)
{
    if (!d->open) {
        return;
    }
    do {
        if (pump_is_dirty(d->pump)) {
            commit(d);
            rpc_events_flow(d);
        }
        conn_hub_serve(&d->hub);
    } while (pump_is_dirty(d->pump));
    conn_hub_send(&d->hub);
    if (d->stepped) { /* also a step that changed nothing durable may have moved the deadline */
        d->stepped = false;
        arm_core_timer(d);
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    turn(prepare->data);
}

static void on_check(uv_check_t *check)
{
    turn(check->data);
}

/* ------------------------------------------------------------------ once a second */

static void watch_clock(struct dsd *d)
{
    int64_t ahead_ms = clock_wall_ms() - dsd_now_ms(d);
    bool stepped = ahead_ms > CLOCK_STEP_MS || ahead_ms < -CLOCK_STEP_MS;
    if (stepped && !d->clock_warned) {
        log_warn("the system clock was set %s by %.1f s; times stay on the old clock until dsd is "
                 "restarted",
                 ahead_ms > 0 ? "forward" : "back", (double)llabs(ahead_ms) / 1000.0);
    }
    d->clock_warned = stepped;
}

static void on_house_timer(uv_timer_t *timer)
{
    struct dsd *d = timer->data;
    struct err err = {0};
    conn_hub_sweep(&d->hub, (int64_t)uv_now(&d->loop));
    if (store_checkpoint_wal(d->store, &err) != 0) {
        log_error("cannot move the write-ahead log into the database: %s (exiting)", err.text);
        _exit(err_exit_status(err.code));
    }
    watch_clock(d);
    notify_watchdog();
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct dsd *d = handle->data;
    log_info("%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
    dsd_stop(d);
}

/* ------------------------------------------------------------------ after a start */

/* What a large database would hold up the first answer with. A thread of its own, behind all other
 * work: jobs start and end at full speed meanwhile. */
static void run_check(void *argument)
{
    struct dsd *d = argument;
    setpriority(PRIO_PROCESS, (id_t)gettid(), CHECK_NICE); /* on Linux of this thread alone */
    d->check_code = store_check(d->config->state_dir, &d->check_err);
    uv_async_send(&d->checked);
}

static void on_checked(uv_async_t *async)
{
    struct dsd *d = async->data;
    d->works--;
    uv_thread_join(&d->check_thread);
    if (d->check_code != 0) {
        log_error("%s (exiting)", d->check_err.text);
        _exit(err_exit_status(d->check_code));
    }
    log_info("the database is whole");
}

static void start_check(struct dsd *d)
{
    if (store_is_checked(d->store)) {
        return;
    }
    int rc = uv_thread_create(&d->check_thread, run_check, d);
    if (rc != 0) {
        log_error("cannot start the thread that checks the database: %s (exiting)",
                  uv_strerror(rc));
        _exit(err_exit_status(ERR_IO));
    }
    d->works++;
}

/* Between other events, a piece at a time. */
static void on_warm(uv_idle_t *idle)
{
    struct dsd *d = idle->data;
    struct err err = {0};
    bool more = false;
    if (views_warm(d->views, WARM_ROWS, &more, &err) != 0) {
        log_warn("%s", err.text); /* who asks will be told */
    }
    if (!more) {
        uv_idle_stop(idle);
    }
}

/* ------------------------------------------------------------------ life-cycle */

static int open_state(struct dsd *d, struct err *err)
{
    const struct config *config = d->config;
    TRY(file_mkdirs(config->state_dir, 0700, err));
    d->core = core_create(&config->core);
    TRY(store_open(&d->store, config->state_dir, err));
    if (config->prices != NULL) {
        TRY(prices_load(d->store, config->prices, err));
    }
    int64_t wall_ms = clock_wall_ms(), boot_ms = clock_boot_ms(); /* loading takes its time */
    TRY(store_load(d->store, d->core, wall_ms, err));
    d->term = core_term(d->core);
    d->last_event = d->logged_event = core_last_event(d->core);
    d->started_ms = core_now_ms(d->core) > wall_ms ? core_now_ms(d->core) : wall_ms;
    if (d->started_ms > wall_ms + CLOCK_STEP_MS) {
        log_warn("the system clock is %.1f s behind the newest entry of the database; times go on "
                 "from there",
                 (double)(d->started_ms - wall_ms) / 1000.0);
    }
    d->clock_base_ms = d->started_ms - boot_ms;
    d->pump = pump_create(d->core, &store_sqlite_ops, d->store, &dsd_effects, d);
    struct views_live live = {.world = d,
                              .node = rpc_node_live,
                              .why = rpc_job_why_live,
                              .planned = rpc_planned_start,
                              .used_gpu_ms = rpc_used_gpu_ms};
    return views_open(&d->views, config->state_dir, &live, err);
}

/* Of the socket. A folder that systemd or an administrator made is left as it is. */
static int make_folder(const char *path, struct err *err)
{
    char *folder = mem_strdup(path);
    *strrchr(folder, '/') = 0; /* the path is absolute */
    int rc = folder[0] != 0 ? file_mkdirs(folder, 0755, err) : 0;
    free(folder);
    return rc;
}

static int listen_all(struct dsd *d, struct err *err)
{
    TRY(make_folder(d->config->socket, err));
    conn_hub_init(&d->hub, &d->loop, &d->config->limits, &rpc_conn_handler, d);
    d->open = true;
    TRY(listener_open_unix(&d->local, &d->hub, d->config->socket, err));
    if (d->config->listen != NULL) {
        TRY(listener_open_tcp(&d->tcp, &d->hub, d->config->listen, err));
    }
    return 0;
}

static void init_handles(struct dsd *d)
{
    uv_prepare_init(&d->loop, &d->prepare);
    uv_check_init(&d->loop, &d->check);
    uv_idle_init(&d->loop, &d->warm);
    uv_async_init(&d->loop, &d->checked, on_checked);
    uv_timer_init(&d->loop, &d->core_timer);
    uv_timer_init(&d->loop, &d->house_timer);
    uv_signal_init(&d->loop, &d->sigterm);
    uv_signal_init(&d->loop, &d->sigint);
    d->prepare.data = d->check.data = d->warm.data = d->core_timer.data = d->house_timer.data = d;
    d->checked.data = d->sigterm.data = d->sigint.data = d;
    uv_prepare_start(&d->prepare, on_prepare);
    uv_check_start(&d->check, on_check);
    uv_timer_start(&d->house_timer, on_house_timer, HOUSE_MS, HOUSE_MS);
    uv_signal_start(&d->sigterm, on_signal, SIGTERM);
    uv_signal_start(&d->sigint, on_signal, SIGINT);
}

int dsd_init(struct dsd *d, const struct config *config, struct err *err)
{
    *d = (struct dsd){.config = config};
    for (size_t i = 0; i < JOB_WAIT_BUCKETS; i++) {
        LIST_INIT(&d->job_waits[i]);
    }
    LIST_INIT(&d->event_waits);
    uv_loop_init(&d->loop);
    d->rendezvous = rendezvous_create(rpc_store_answer, d);
    TRY(open_state(d, err));
    init_handles(d);
    TRY(listen_all(d, err));
    log_info("dsd %s, SQLite %s, libuv %s: cluster %s, term %llu, state in %s", DS_VERSION,
             sqlite3_libversion(), uv_version_string(), config->core.cluster,
             (unsigned long long)d->term, config->state_dir);
    log_info("listening on %s%s%s", d->local.name, d->tcp.open ? " and " : "",
             d->tcp.open ? d->tcp.name : "");
    return 0;
}

void dsd_run(struct dsd *d)
{
    /* The core may have something to do at once: a first tick also arms its timer. */
    dsd_input(d, &(struct input){.kind = INPUT_TICK}, NULL);
    notify_ready();
    start_check(d);
    uv_idle_start(&d->warm, on_warm);
    uv_run(&d->loop, UV_RUN_DEFAULT);
}

static void close_handle(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void dsd_stop(struct dsd *d)
{
    if (d->stopping) {
        return;
    }
    d->stopping = true;
    notify_stopping();
    listener_close(&d->local);
    listener_close(&d->tcp);
    turn(d);
    conn_hub_close_all(&d->hub);
    d->open = false;
    close_handle((uv_handle_t *)&d->prepare, NULL);
    close_handle((uv_handle_t *)&d->check, NULL);
    close_handle((uv_handle_t *)&d->warm, NULL);
    close_handle((uv_handle_t *)&d->core_timer, NULL);
    close_handle((uv_handle_t *)&d->house_timer, NULL);
    close_handle((uv_handle_t *)&d->sigterm, NULL);
    close_handle((uv_handle_t *)&d->sigint, NULL);
    uv_stop(&d->loop);
}

bool dsd_fini(struct dsd *d)
{
    d->stopping = true;
    if (d->open) {
        d->open = false;
        listener_close(&d->local);
        listener_close(&d->tcp);
        conn_hub_close_all(&d->hub);
    }
    uv_walk(&d->loop, close_handle, NULL);
    while (uv_run(&d->loop, UV_RUN_NOWAIT) != 0 && d->works == 0) {
    }
    pump_destroy(d->pump);
    views_close(d->views);
    store_close(d->store);
    if (d->works > 0) {
        return false;
    }
    uv_loop_close(&d->loop);
    core_destroy(d->core);
    rendezvous_destroy(d->rendezvous);
    slotmap_fini(&d->pending);
    slotmap_fini(&d->sessions);
    slotmap_fini(&d->store_waiters);
    *d = (struct dsd){0};
    return true;
}
