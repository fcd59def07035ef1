#include "daemon/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/mem.h"

struct order {
    uint64_t request_id;
    uint16_t method;
    uint64_t job, epoch_or_ckpt;
    struct call *call; /* borrowed; NULL: nobody, or nobody any more */
    LIST_ENTRY(order) all;
};

struct session *session_of_peer(struct peer *peer, const char *name)
{
    struct session *s = peer->session;
    if (s == NULL) {
        s = mem_alloc(sizeof *s);
        s->peer = peer;
        s->id = slotmap_add(&peer->dsd->sessions, s);
        LIST_INIT(&s->orders);
        peer->session = s;
    }
    if (s->name == NULL) {
        s->name = mem_strdup(name);
    }
    return s;
}

struct session *session_find(struct dsd *d, session_id id)
{
    return slotmap_find(&d->sessions, id);
}

static void order_destroy(struct order *o)
{
    LIST_REMOVE(o, all);
    free(o);
}

void session_destroy(struct session *s)
{
    if (s == NULL) {
        return;
    }
    struct dsd *d = s->peer->dsd;
    slotmap_remove(&d->sessions, s->id);
    s->peer->session = NULL;
    while (!LIST_EMPTY(&s->orders)) {
        struct order *o = LIST_FIRST(&s->orders);
        struct call *call = o->call;
        order_destroy(o);
        if (call != NULL) {
            call->link = NULL;
            call_fail(call, ERR_UNREACHABLE,
                      "lost the connection to node %s (try again when it is back)", s->name);
        }
    }
    if (s->known && !d->stopping) {
        if (s->joined) {
            log_info("worker %s left (%s)", s->name, s->peer->conn->peer.text);
        }
        dsd_input(d, &(struct input){.kind = INPUT_WORKER_GONE, .session = s->id}, NULL);
    }
    free(s->name);
    free(s);
}

void session_order(struct session *s, uint16_t method, const ProtobufCMessage *message,
                   uint64_t job, uint64_t epoch_or_ckpt, struct call *call)
{
    struct order *o = mem_alloc(sizeof *o);
    *o = (struct order){.request_id = ++s->next_request,
                        .method = method,
                        .job = job,
                        .epoch_or_ckpt = epoch_or_ckpt,
                        .call = call};
    LIST_INSERT_HEAD(&s->orders, o, all);
    struct conn *conn = s->peer->conn;
    if (call != NULL) {
        call->link = o;
    }
    /* What a submit may hold is limited so that every order fits (rpc_submit.c). */
    int rc = rpc_pack(conn_out(conn), method, FRAME_REQUEST, o->request_id, message);
    assert(rc == 0);
    conn_touch(conn);
}

void session_order_orphan(struct call *call)
{
    struct order *o = call->link;
    if (o != NULL) {
        o->call = NULL;
    }
}

/* ------------------------------------------------------------------ answers */

static void answer_call(struct order *o, const struct frame *f)
{
    struct call *call = o->call;
    if (call == NULL) {
        return;
    }
    call->link = NULL;
    struct err err = {0};
    ProtobufCMessage *message = NULL;
    int rc = f->kind == FRAME_ERROR ? rpc_unpack_error(f, &err) : rpc_unpack(f, &message, &err);
    call_answer(call, rc, message, &err);
}

/* The worker cannot even try: for the core that is an attempt that ended before it began. */
static void start_refused(struct session *s, const struct order *o, const struct err *err)
{
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = s->id};
    in.u.attempt.job = o->job;
    in.u.attempt.epoch = o->epoch_or_ckpt;
    in.u.attempt.phase = 3;
    in.u.attempt.error = err->text;
    dsd_input(s->peer->dsd, &in, NULL);
}

static void checkpoint_answered(struct session *s, const struct order *o, int code,
                                const struct err *err)
{
    struct input in = {.kind = o->method == RPC_CKPT_PUBLISH ? INPUT_CKPT_PUBLISHED
                                                             : INPUT_CKPT_REMOVED,
                       .session = s->id};
    in.u.ckpt.ckpt = o->epoch_or_ckpt;
    in.u.ckpt.ok = code == 0;
    in.u.ckpt.text = err->text;
    dsd_input(s->peer->dsd, &in, NULL);
}

/* How it went says the report that follows. */
static void stop_acknowledged(struct session *s, const struct order *o)
{
    struct input in = {.kind = INPUT_STOP_ACKED, .session = s->id};
    in.u.acked.job = o->job;
    in.u.acked.epoch = o->epoch_or_ckpt;
    dsd_input(s->peer->dsd, &in, NULL);
}

static struct order *find_order(struct session *s, const struct frame *f)
{
    struct order *o;
    LIST_FOREACH(o, &s->orders, all)
    {
        if (o->request_id == f->request_id && o->method == f->method) {
            return o;
        }
    }
    return NULL;
}

bool session_answer(struct session *s, const struct frame *f)
{
    struct order *o = find_order(s, f);
    if (o == NULL) {
        return false;
    }
    struct err err = {0};
    int code = f->kind == FRAME_ERROR && o->method != RPC_LOG_READ ? rpc_unpack_error(f, &err) : 0;
    if (code != 0) {
        log_warn("worker %s: %s of job %llu: %s", s->name, rpc_find(o->method)->name,
                 (unsigned long long)o->job, err.text);
    }
    switch (o->method) {
    case RPC_LOG_READ:
        answer_call(o, f);
        break;
    case RPC_CKPT_PUBLISH:
    case RPC_CKPT_REMOVE:
        checkpoint_answered(s, o, code, &err);
        break;
    case RPC_ATTEMPT_START:
        if (code != 0) {
            start_refused(s, o, &err);
        }
        break;
    case RPC_ATTEMPT_STOP:
        if (code == 0) {
            stop_acknowledged(s, o);
        }
        break;
    default: /* forget: the report that follows says how it went */
        break;
    }
    order_destroy(o);
    return true;
}
