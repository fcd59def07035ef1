/* The thread of a reporter: connect, greet, send what waits, take answers; over again when the line
 * breaks. It sleeps in poll with the lock released, and holds it for everything else, none of which
 * blocks. */
#include "proto/reporter_line.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/sock.h"

#define STEPS_IN_REPORT     512u
#define READ_BYTES          65536u
#define CONNECT_MS          1000
#define BACKOFF_FIRST_MS    50
#define BACKOFF_LAST_MS     2000
#define ANSWER_MS           120000 /* twice the longest deadline of a report */
#define ANSWER_AFTER_GET_MS 60000

static int64_t backoff_ms(unsigned tries)
{
    return tries >= 6 ? BACKOFF_LAST_MS : (int64_t)BACKOFF_FIRST_MS << tries;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- the connection */
static void disconnect(struct reporter *r)
{
    if (r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    }
    r->greeted = false;
    buf_reset(&r->in);
    buf_reset(&r->out);
    for (size_t i = 0; i < r->call_count; i++) {
        r->calls[i]->sent = false;
    }
    r->connect_at_ms = clock_boot_ms() + backoff_ms(r->connect_tries++);
}

static void connect_line(struct reporter *r)
{
    int fd;
    pthread_mutex_unlock(&r->lock);
    int rc = sock_connect(&fd, r->path, CONNECT_MS, NULL);
    pthread_mutex_lock(&r->lock);
    if (rc != 0) {
        disconnect(r);
        return;
    }
    r->fd = fd;
    Ds__RankHello hello = DS__RANK_HELLO__INIT;
    hello.job = r->job;
    hello.epoch = r->epoch;
    hello.rank = r->rank;
    hello.pid = (int32_t)getpid();
    r->hello_id = r->next_id++;
    r->hello_by_ms = clock_boot_ms() + rpc_find(RPC_RANK_HELLO)->deadline_ms;
    rpc_pack(&r->out, RPC_RANK_HELLO, FRAME_REQUEST, r->hello_id, &hello.base);
}

static void send_some(struct reporter *r)
{
    while (r->fd >= 0 && r->out.len > 0) {
        ssize_t sent = send(r->fd, r->out.data, r->out.len, MSG_NOSIGNAL);
        if (sent >= 0) {
            buf_consume(&r->out, (size_t)sent);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            disconnect(r);
        }
    }
}

/* ---- from queues to frames */
static bool has_step_call(const struct reporter *r)
{
    for (size_t i = 0; i < r->call_count; i++) {
        if (r->calls[i]->method == RPC_STEP_REPORT) {
            return true;
        }
    }
    return false;
}

/* Waiting steps become one call. Only one such call exists at a time, so steps arrive in order, and
 * what was sent once is never merged with more: the receiver can tell a repeat by its last step. */
static void make_step_call(struct reporter *r)
{
    if (r->step_count == 0 || has_step_call(r)) {
        return;
    }
    size_t count = r->step_count < STEPS_IN_REPORT ? r->step_count : STEPS_IN_REPORT;
    Ds__Metric *metrics[STEPS_IN_REPORT];
    Ds__StepReport report = DS__STEP_REPORT__INIT;
    report.job = r->job;
    report.epoch = r->epoch;
    report.steps = r->steps_goal;
    report.n_metric = count;
    report.metric = metrics;
    for (size_t i = 0; i < count; i++) {
        metrics[i] = &r->steps[i].metric;
        report.ckpt_stall_ms += r->steps[i].ckpt_stall_ms;
        report.data_wait_ms += r->steps[i].data_wait_ms;
    }
    struct call *c = reporter_add_call(r, RPC_STEP_REPORT);
    c->step = r->steps[0].metric.step;
    rpc_pack(&c->frame, RPC_STEP_REPORT, FRAME_REQUEST, c->id, &report.base);
    reporter_remove_steps(r, count);
}

static void make_get_frame(const struct reporter *r, struct call *c, int64_t now)
{
    Ds__StoreGet get = DS__STORE_GET__INIT;
    get.job = r->job;
    get.epoch = r->epoch;
    get.key = c->key;
    get.wait_ms = c->give_up_ms > now ? (uint64_t)(c->give_up_ms - now) : 0;
    buf_reset(&c->frame);
    rpc_pack(&c->frame, RPC_STORE_GET, FRAME_REQUEST, c->id, &get.base);
}

/* A shard waits until every step up to its own is acknowledged: once the checkpoint is committed
 * nobody does those steps again, so a rank that dies now must not take their reports along. */
static bool must_wait(const struct reporter *r, const struct call *c)
{
    if (c->method != RPC_SHARD_REPORT) {
        return false;
    }
    if (r->step_count > 0 && r->steps[0].metric.step <= c->step) {
        return true;
    }
    for (size_t i = 0; i < r->call_count; i++) {
        if (r->calls[i]->method == RPC_STEP_REPORT && r->calls[i]->step <= c->step) {
            return true;
        }
    }
    return false;
}

static void send_calls(struct reporter *r, int64_t now)
{
    make_step_call(r);
    for (size_t i = 0; i < r->call_count; i++) {
        struct call *c = r->calls[i];
        if (c->sent || c->not_before_ms > now || must_wait(r, c)) {
            continue;
        }
        c->answer_by_ms = now + ANSWER_MS;
        if (c->method == RPC_STORE_GET) {
            make_get_frame(r, c, now);
            c->answer_by_ms = (c->give_up_ms > now ? c->give_up_ms : now) + ANSWER_AFTER_GET_MS;
        }
        buf_append(&r->out, c->frame.data, c->frame.len);
        c->sent = true;
    }
    send_some(r);
}

/* ---- answers */
static void become_stale(struct reporter *r)
{
    atomic_store(&r->stale, true);
    for (size_t i = r->call_count; i > 0; i--) {
        if (r->calls[i - 1]->waiter == NULL) {
            reporter_remove_call(r, i - 1);
        }
    }
    reporter_remove_steps(r, r->step_count);
}

static bool is_temporary(int code)
{
    return code == ERR_AGAIN || code == ERR_UNREACHABLE || code == ERR_TIMEOUT;
}

static void finish_waiter(struct waiter *w, const struct frame *f, int code, const struct err *why)
{
    w->done = true;
    w->rc = code;
    w->err = *why;
    if (code == 0 && f->method == RPC_STORE_GET) {
        ProtobufCMessage *reply;
        w->rc = rpc_unpack(f, &reply, &w->err);
        if (w->rc == 0) {
            const Ds__StoreValue *got = (const Ds__StoreValue *)reply;
            w->len = got->value.len;
            w->value = mem_alloc(w->len);
            memcpy(w->value, got->value.data, w->len);
            rpc_free(reply);
        }
    }
}

static void take_answer(struct reporter *r, const struct frame *f, int code, const struct err *why)
{
    size_t i = 0;
    while (i < r->call_count && r->calls[i]->id != f->request_id) {
        i++;
    }
    if (i == r->call_count || r->calls[i]->method != f->method) {
        return; /* someone stopped waiting for it */
    }
    struct call *c = r->calls[i];
    int64_t now = clock_boot_ms();
    if (is_temporary(code) && !(c->method == RPC_STORE_GET && now >= c->give_up_ms)) {
        c->sent = false;
        c->not_before_ms = now + backoff_ms(c->tries++);
        return;
    }
    if (c->waiter != NULL) {
        finish_waiter(c->waiter, f, code, why);
    } else if (code != 0 && !r->complained) {
        log_warn("%s was refused and is dropped: %s", rpc_find(c->method)->name, why->text);
    }
    if (c->waiter == NULL) {
        r->complained = code != 0;
    }
    reporter_remove_call(r, i);
}

static void take_greeting(struct reporter *r, int code, const struct err *why)
{
    if (code == 0) {
        r->greeted = true;
        r->connect_tries = 0;
        return;
    }
    if (!is_temporary(code) && !r->complained) {
        r->complained = true;
        log_warn("%s does not know this rank: %s", r->path, why->text);
    }
    disconnect(r);
}

static void take_frame(struct reporter *r, const struct frame *f)
{
    if (f->kind == FRAME_ONEWAY && f->method == RPC_RANK_STOP) {
        atomic_store(&r->stop_requested, true);
        return;
    }
    if (f->kind != FRAME_REPLY && f->kind != FRAME_ERROR) {
        return;
    }
    struct err why = {0};
    int code = f->kind == FRAME_ERROR ? rpc_unpack_error(f, &why) : 0;
    if (code == ERR_STALE) {
        become_stale(r);
    } else if (!r->greeted && f->request_id == r->hello_id) {
        take_greeting(r, code, &why);
    } else {
        take_answer(r, f, code, &why);
    }
}

static void receive_some(struct reporter *r)
{
    uint8_t *room = buf_reserve(&r->in, READ_BYTES);
    ssize_t got = recv(r->fd, room, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        disconnect(r);
        return;
    }
    r->in.len += (size_t)got;
    size_t at = 0;
    while (r->fd >= 0) {
        struct frame f;
        size_t used;
        struct err why;
        int rc = frame_decode(r->in.data + at, r->in.len - at, FRAME_PAYLOAD_MAX, &f, &used, &why);
        if (rc == ERR_AGAIN) {
            buf_consume(&r->in, at);
            break;
        }
        if (rc != 0) {
            log_warn("%s: %s; connecting anew", r->path, why.text);
            disconnect(r);
            break;
        }
        take_frame(r, &f);
        at += used;
    }
    pthread_cond_broadcast(&r->changed);
}

/* ---- time */
static bool is_overdue(const struct reporter *r, int64_t now)
{
    if (!r->greeted) {
        return now >= r->hello_by_ms;
    }
    for (size_t i = 0; i < r->call_count; i++) {
        if (r->calls[i]->sent && now >= r->calls[i]->answer_by_ms) {
            return true;
        }
    }
    return false;
}

/* When poll must return although nothing arrives. */
static int64_t next_deadline(const struct reporter *r)
{
    if (r->fd < 0) {
        return r->connect_at_ms;
    }
    if (!r->greeted) {
        return r->hello_by_ms;
    }
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < r->call_count; i++) {
        const struct call *c = r->calls[i];
        if (c->sent || !must_wait(r, c)) {
            next = earlier(next, c->sent ? c->answer_by_ms : c->not_before_ms);
        }
    }
    return next;
}

/* Sleeps with the lock released; true when the socket has something to say. */
static bool sleep_in_poll(struct reporter *r)
{
    bool idle = r->fd < 0 && atomic_load(&r->stale);
    int64_t left = idle ? INT64_MAX : next_deadline(r);
    if (left != INT64_MAX) {
        left -= clock_boot_ms();
        left = left < 0 ? 0 : earlier(left, 3600000);
    }
    struct pollfd fds[2] = {{.fd = r->wake_fd, .events = POLLIN}, {.fd = r->fd, .events = POLLIN}};
    if (r->out.len > 0) {
        fds[1].events |= POLLOUT;
    }
    pthread_mutex_unlock(&r->lock);
    poll(fds, 2, left == INT64_MAX ? -1 : (int)left);
    uint64_t count;
    ssize_t ignored = read(r->wake_fd, &count, sizeof count);
    (void)ignored;
    pthread_mutex_lock(&r->lock);
    return r->fd >= 0 && (fds[1].revents & ~POLLOUT) != 0;
}

void *reporter_line_run(void *reporter)
{
    struct reporter *r = reporter;
    pthread_mutex_lock(&r->lock);
    while (!r->quit) {
        if (r->fd < 0 && !atomic_load(&r->stale) && clock_boot_ms() >= r->connect_at_ms) {
            connect_line(r);
        }
        if (r->greeted && !atomic_load(&r->stale)) {
            send_calls(r, clock_boot_ms());
        }
        send_some(r);
        if (sleep_in_poll(r)) {
            receive_some(r);
        }
        if (r->fd >= 0 && is_overdue(r, clock_boot_ms())) {
            log_warn("%s does not answer; connecting anew", r->path);
            disconnect(r);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}
