/* What callers see: queues under one lock. The thread that empties them is in reporter_line.c. */
#include "proto/reporter.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/reporter_line.h"

/* What is kept while nobody takes it: hours of steps. Past it the oldest half is forgotten. */
#define STEPS_KEPT_MAX 65536u
#define STORE_SET_MS   600000

static void wake(struct reporter *r)
{
    uint64_t one = 1;
    ssize_t ignored = write(r->wake_fd, &one, sizeof one);
    (void)ignored; /* fails only when it is awake already */
}

/* Waits for a change until the deadline; false when it passed. */
static bool wait_change(struct reporter *r, int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_boot_ms();
    if (left <= 0) {
        return false;
    }
    left = left < 3600000 ? left : 3600000;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += left / 1000;
    until.tv_nsec += (left % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&r->changed, &r->lock, &until);
    return true;
}

struct call *reporter_add_call(struct reporter *r, uint16_t method)
{
    void *array = r->calls;
    mem_grow(&array, &r->call_capacity, r->call_count + 1, sizeof(struct call *));
    r->calls = array;
    struct call *c = mem_alloc(sizeof *c);
    c->id = r->next_id++;
    c->method = method;
    r->calls[r->call_count++] = c;
    return c;
}

void reporter_remove_call(struct reporter *r, size_t index)
{
    struct call *c = r->calls[index];
    r->call_count--;
    memmove(r->calls + index, r->calls + index + 1,
            (r->call_count - index) * sizeof(struct call *));
    buf_fini(&c->frame);
    free(c->key);
    free(c);
}

void reporter_remove_steps(struct reporter *r, size_t count)
{
    if (count == 0) {
        return; /* there may never have been a step */
    }
    for (size_t i = 0; i < count; i++) {
        free(r->steps[i].metric.layer_maxvio);
    }
    r->step_count -= count;
    memmove(r->steps, r->steps + count, r->step_count * sizeof *r->steps);
}

void reporter_step(struct reporter *r, const Ds__Metric *metric, uint64_t steps,
                   uint64_t ckpt_stall_ms, uint64_t data_wait_ms)
{
    pthread_mutex_lock(&r->lock);
    if (!atomic_load(&r->stale)) {
        if (r->step_count == STEPS_KEPT_MAX) {
            log_warn("nobody takes the step reports; the oldest %u are forgotten",
                     STEPS_KEPT_MAX / 2);
            reporter_remove_steps(r, STEPS_KEPT_MAX / 2);
        }
        void *array = r->steps;
        mem_grow(&array, &r->step_capacity, r->step_count + 1, sizeof *r->steps);
        r->steps = array;
        struct step *s = &r->steps[r->step_count++];
        *s = (struct step){*metric, ckpt_stall_ms, data_wait_ms};
        s->metric.base.n_unknown_fields = 0;
        s->metric.base.unknown_fields = NULL;
        s->metric.epoch = r->epoch;
        s->metric.layer_maxvio = mem_strdup(metric->layer_maxvio);
        r->steps_goal = steps;
        wake(r);
    }
    pthread_mutex_unlock(&r->lock);
}

static void add_report(struct reporter *r, uint16_t method, uint64_t step,
                       const ProtobufCMessage *message)
{
    pthread_mutex_lock(&r->lock);
    if (!atomic_load(&r->stale)) {
        struct call *c = reporter_add_call(r, method);
        c->step = step;
        if (rpc_pack(&c->frame, method, FRAME_REQUEST, c->id, message) != 0) {
            log_error("%s of step %llu is over 4 MiB and is not sent", rpc_find(method)->name,
                      (unsigned long long)step);
            reporter_remove_call(r, r->call_count - 1);
        }
        wake(r);
    }
    pthread_mutex_unlock(&r->lock);
}

void reporter_shard(struct reporter *r, const Ds__ShardReport *shard)
{
    Ds__ShardReport m = *shard;
    m.job = r->job;
    m.epoch = r->epoch;
    add_report(r, RPC_SHARD_REPORT, m.step, &m.base);
}

void reporter_guard(struct reporter *r, const Ds__GuardReport *guard)
{
    Ds__GuardReport m = *guard;
    m.job = r->job;
    m.epoch = r->epoch;
    add_report(r, RPC_GUARD_REPORT, m.step, &m.base);
}

static bool has_reports(const struct reporter *r)
{
    for (size_t i = 0; i < r->call_count; i++) {
        if (r->calls[i]->waiter == NULL) {
            return true;
        }
    }
    return r->step_count > 0;
}

static int stale_error(const struct reporter *r, struct err *err)
{
    return err_set(err, ERR_STALE, "epoch %llu of job %llu is over", (unsigned long long)r->epoch,
                   (unsigned long long)r->job);
}

int reporter_flush(struct reporter *r, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_boot_ms() + timeout_ms;
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    while (rc == 0 && has_reports(r) && !atomic_load(&r->stale)) {
        if (!wait_change(r, deadline_ms)) {
            rc = err_set(err, ERR_TIMEOUT, "reports were not acknowledged in %lld ms",
                         (long long)timeout_ms);
        }
    }
    if (rc == 0 && atomic_load(&r->stale)) {
        rc = stale_error(r, err);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* Lock held. Blocks until the call is answered; it is gone from the list afterwards. */
static int wait_answer(struct reporter *r, uint64_t id, struct waiter *w, int64_t deadline_ms,
                       struct err *err)
{
    while (!w->done && !atomic_load(&r->stale) && wait_change(r, deadline_ms)) {
    }
    for (size_t i = 0; !w->done && i < r->call_count; i++) {
        if (r->calls[i]->id == id) {
            reporter_remove_call(r, i);
            break;
        }
    }
    if (w->done) {
        return w->rc == 0 ? 0 : err_set(err, w->rc, "%s", w->err.text);
    }
    if (atomic_load(&r->stale)) {
        return stale_error(r, err);
    }
    return err_set(err, ERR_TIMEOUT, "no answer in time");
}

int reporter_store_set(struct reporter *r, const char *key, const void *value, size_t len,
                       struct err *err)
{
    struct waiter w = {0};
    Ds__StoreSet m = DS__STORE_SET__INIT;
    m.job = r->job;
    m.epoch = r->epoch;
    m.key = (char *)(uintptr_t)key;
    m.value = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)value};
    pthread_mutex_lock(&r->lock);
    struct call *c = reporter_add_call(r, RPC_STORE_SET);
    int rc = rpc_pack(&c->frame, RPC_STORE_SET, FRAME_REQUEST, c->id, &m.base);
    if (rc != 0) {
        reporter_remove_call(r, r->call_count - 1);
        rc = err_set(err, ERR_TOO_LARGE, "the value is over 4 MiB");
    } else {
        c->waiter = &w;
        wake(r);
        rc = wait_answer(r, c->id, &w, clock_boot_ms() + STORE_SET_MS, err);
    }
    pthread_mutex_unlock(&r->lock);
    return rc == 0 ? 0 : err_wrap(err, "store: cannot set %s", key);
}

int reporter_store_get(struct reporter *r, const char *key, int64_t timeout_ms, void **value,
                       size_t *len, struct err *err)
{
    struct waiter w = {0};
    *value = NULL;
    *len = 0;
    pthread_mutex_lock(&r->lock);
    struct call *c = reporter_add_call(r, RPC_STORE_GET);
    c->key = mem_strdup(key);
    c->give_up_ms = clock_boot_ms() + timeout_ms;
    c->waiter = &w;
    wake(r);
    int rc = wait_answer(r, c->id, &w, c->give_up_ms, err);
    pthread_mutex_unlock(&r->lock);
    *value = w.value;
    *len = w.len;
    return rc == 0 ? 0 : err_wrap(err, "store: cannot get %s", key);
}

bool reporter_stop_requested(const struct reporter *r)
{
    return atomic_load(&r->stop_requested) || atomic_load(&r->stale);
}

bool reporter_is_stale(const struct reporter *r)
{
    return atomic_load(&r->stale);
}

/* The thread takes no signals: they are the program's. */
static int start_thread(struct reporter *r)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&r->thread, NULL, reporter_line_run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

static void release(struct reporter *r)
{
    while (r->call_count > 0) {
        reporter_remove_call(r, r->call_count - 1);
    }
    if (r->fd >= 0) {
        close(r->fd);
    }
    close(r->wake_fd);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    buf_fini(&r->in);
    buf_fini(&r->out);
    reporter_remove_steps(r, r->step_count);
    free(r->calls);
    free(r->steps);
    free(r->path);
    free(r);
}

int reporter_create(struct reporter **reporter, const char *socket_path, uint64_t job,
                    uint64_t epoch, uint32_t rank, struct err *err)
{
    *reporter = NULL;
    if (strlen(socket_path) >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
        return err_set(err, ERR_USAGE, "DS_REPORT_SOCKET is too long a path: %s", socket_path);
    }
    int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0) {
        return err_set_errno(err, "cannot create an eventfd");
    }
    struct reporter *r = mem_alloc(sizeof *r);
    r->path = mem_strdup(socket_path);
    r->job = job;
    r->epoch = epoch;
    r->rank = rank;
    r->wake_fd = wake_fd;
    r->fd = -1;
    r->next_id = 1;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&r->lock, NULL);
    int failure = start_thread(r);
    if (failure != 0) {
        release(r);
        return err_set(err, ERR_FAILED, "cannot start a thread: %s", strerror(failure));
    }
    *reporter = r;
    return 0;
}

void reporter_destroy(struct reporter *r, int64_t drain_ms)
{
    if (r == NULL) {
        return;
    }
    struct err why;
    if (reporter_flush(r, drain_ms, &why) == ERR_TIMEOUT && drain_ms > 0) {
        log_warn("leaving with %s", why.text);
    }
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    wake(r);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    release(r);
}
