#include "daemon/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"

/* Waiting costs little, but not nothing. */
#define PARKED_MAX 16384

struct call *call_begin(struct peer *peer, const struct frame *f)
{
    struct call *call = mem_alloc(sizeof *call);
    call->dsd = peer->dsd;
    call->peer = peer;
    call->method = f->method;
    call->request_id = f->request_id;
    call->deadline_ms =
        f->deadline_ms > 0 ? (int64_t)uv_now(&peer->dsd->loop) + f->deadline_ms : INT64_MAX;
    LIST_INSERT_HEAD(&peer->calls, call, of_peer);
    return call;
}

static void leave_peer(struct call *call)
{
    if (call->peer == NULL) {
        return;
    }
    LIST_REMOVE(call, of_peer);
    if (call->parked) {
        call->peer->parked--;
    }
    if (call->busy) {
        conn_done(call->peer->conn);
    }
    call->peer = NULL;
}

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void call_end(struct call *call)
{
    leave_peer(call);
    if (call->unhook != NULL) {
        call->unhook(call);
    }
    free(call->data);
    if (call->timed) {
        uv_close((uv_handle_t *)&call->timer, on_timer_closed);
    } else {
        free(call);
    }
}

static struct buf *out_of(struct call *call)
{
    conn_touch(call->peer->conn);
    return conn_out(call->peer->conn);
}

void call_reply(struct call *call, const ProtobufCMessage *message)
{
    if (call->peer != NULL) {
        rpc_pack(out_of(call), call->method, FRAME_REPLY, call->request_id, message);
    }
    call_end(call);
}

static void send_error(struct call *call, int code, const char *text)
{
    if (call->peer != NULL) {
        rpc_pack_error(out_of(call), call->method, call->request_id, code, text);
    }
}

void call_fail(struct call *call, int code, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    send_error(call, code, text);
    call_end(call);
}

void call_outcome(struct call *call, int code, const char *text)
{
    if (code == 0) {
        call_reply(call, &(Ds__Empty)DS__EMPTY__INIT.base);
    } else {
        call_fail(call, code, "%s", text);
    }
}

void call_answer(struct call *call, int rc, ProtobufCMessage *message, const struct err *err)
{
    if (rc == 0) {
        call_reply(call, message);
        rpc_free(message);
    } else {
        call_fail(call, rc, "%s", err->text);
    }
}

/* ------------------------------------------------------------------ the core's answer */

static void on_effect(struct pending *p, const struct effect *reply)
{
    struct call *call = (struct call *)((char *)p - offsetof(struct call, pending));
    call->done(call, reply);
}

void call_busy(struct call *call)
{
    if (call->peer != NULL && !call->busy) {
        call->busy = true;
        conn_busy(call->peer->conn);
    }
}

void call_commit(struct call *call, struct input *in,
                 void (*done)(struct call *call, const struct effect *reply))
{
    call->done = done;
    call->pending.done = on_effect;
    call_busy(call);
    dsd_input(call->dsd, in, &call->pending);
}

void call_done_empty(struct call *call, const struct effect *reply)
{
    call_outcome(call, reply->u.reply.code, reply->u.reply.text);
}

/* ------------------------------------------------------------------ deadlines */

static void on_timer(uv_timer_t *timer)
{
    struct call *call = timer->data;
    if ((int64_t)uv_now(timer->loop) >= call->deadline_ms || call->expired == NULL) {
        if (call->parked) {
            call_fail(call, ERR_TIMEOUT, "no answer before the request's deadline");
        } else {
            send_error(call, ERR_TIMEOUT,
                       "no answer before the request's deadline (the work goes on)");
            leave_peer(call);
        }
    } else {
        call->expired(call);
    }
}

static void set_timer(struct call *call, int64_t wait_ms)
{
    int64_t now_ms = (int64_t)uv_now(&call->dsd->loop);
    int64_t left_ms = call->deadline_ms == INT64_MAX ? INT64_MAX : call->deadline_ms - now_ms;
    if (wait_ms > left_ms) {
        wait_ms = left_ms;
    }
    if (wait_ms == INT64_MAX) {
        return;
    }
    if (!call->timed) {
        call->timed = true;
        uv_timer_init(&call->dsd->loop, &call->timer);
        call->timer.data = call;
    }
    uv_timer_start(&call->timer, on_timer, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
}

bool call_park(struct call *call, int64_t wait_ms, void (*expired)(struct call *call),
               void (*unhook)(struct call *call))
{
    if (call->peer->parked >= PARKED_MAX) {
        call_fail(call, ERR_AGAIN, "%d requests of this connection wait already (try again later)",
                  PARKED_MAX);
        return false;
    }
    call->parked = true;
    call->peer->parked++;
    call->expired = expired;
    call->unhook = unhook;
    set_timer(call, wait_ms);
    return true;
}

void call_work(struct call *call)
{
    set_timer(call, INT64_MAX);
}

void call_peer_gone(struct peer *peer)
{
    struct call *call = LIST_FIRST(&peer->calls);
    while (call != NULL) {
        struct call *next = LIST_NEXT(call, of_peer);
        if (call->parked) {
            call_end(call);
        } else {
            leave_peer(call);
        }
        call = next;
    }
}
