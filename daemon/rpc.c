#include "daemon/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/session.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/version.h"

enum { METHOD_COUNT = 256 };

static const struct {
    rpc_handler *handler;
    bool worker; /* only for a registered worker */
} served[METHOD_COUNT] = {
    [RPC_JOB_SUBMIT] = {rpc_job_submit, false},
    [RPC_JOB_LIST] = {rpc_job_list, false},
    [RPC_JOB_SHOW] = {rpc_job_show, false},
    [RPC_JOB_WHY] = {rpc_job_why, false},
    [RPC_JOB_CANCEL] = {rpc_job_cancel, false},
    [RPC_JOB_WAIT] = {rpc_job_wait, false},
    [RPC_JOB_LOGS] = {rpc_job_logs, false},
    [RPC_JOB_METRICS] = {rpc_job_metrics, false},
    [RPC_JOB_HOLD] = {rpc_job_hold, false},
    [RPC_JOB_RELEASE] = {rpc_job_release, false},
    [RPC_JOB_UPDATE] = {rpc_job_update, false},
    [RPC_JOB_RESIZE] = {rpc_job_resize, false},
    [RPC_JOB_SUSPEND] = {rpc_job_suspend, false},
    [RPC_JOB_RESUME] = {rpc_job_resume, false},
    [RPC_JOB_REQUEUE] = {rpc_job_requeue, false},
    [RPC_JOB_PLAN] = {rpc_job_plan, false},
    [RPC_QUEUE_LIST] = {rpc_queue_list, false},
    [RPC_QUEUE_SHOW] = {rpc_queue_show, false},
    [RPC_QUEUE_SET] = {rpc_queue_set, false},
    [RPC_ACCOUNT_LIST] = {rpc_account_list, false},
    [RPC_ACCOUNT_SHOW] = {rpc_account_show, false},
    [RPC_ACCOUNT_SET] = {rpc_account_set, false},
    [RPC_QUOTA_LIST] = {rpc_quota_list, false},
    [RPC_QUOTA_SET] = {rpc_quota_set, false},
    [RPC_MAINT_CREATE] = {rpc_maint_create, false},
    [RPC_MAINT_LIST] = {rpc_maint_list, false},
    [RPC_MAINT_CANCEL] = {rpc_maint_cancel, false},
    [RPC_NODE_LIST] = {rpc_node_list, false},
    [RPC_NODE_SHOW] = {rpc_node_show, false},
    [RPC_NODE_DRAIN] = {rpc_node_drain, false},
    [RPC_NODE_RESUME] = {rpc_node_resume, false},
    [RPC_CKPT_LIST] = {rpc_ckpt_list, false},
    [RPC_CKPT_SHOW] = {rpc_ckpt_show, false},
    [RPC_CKPT_VERIFY] = {rpc_ckpt_verify, false},
    [RPC_COST_REPORT] = {rpc_cost_report, false},
    [RPC_COST_VERIFY] = {rpc_cost_verify, false},
    [RPC_EVENT_LIST] = {rpc_event_list, false},
    [RPC_CLUSTER_STATUS] = {rpc_cluster_status, false},
    [RPC_WORKER_REGISTER] = {rpc_worker_register, false},
    [RPC_HEARTBEAT] = {rpc_heartbeat, true},
    [RPC_ATTEMPT_REPORT] = {rpc_attempt_report, true},
    [RPC_SHARD_REPORT] = {rpc_shard_report, true},
    [RPC_STEP_REPORT] = {rpc_step_report, true},
    [RPC_GUARD_REPORT] = {rpc_guard_report, true},
    [RPC_STORE_SET] = {rpc_store_set, true},
    [RPC_STORE_GET] = {rpc_store_get, true},
};

rpc_handler *rpc_handler_of(uint16_t method)
{
    return method < METHOD_COUNT ? served[method].handler : NULL;
}

int rpc_check_name(const char *name, size_t max, const char *what, struct err *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);
    if (len == 0 || len > max || name[0] == '-' || name[0] == '.' || strspn(name, allowed) != len) {
        return err_set(err, ERR_INVALID, "%s '%.80s' is not a name (1 to %zu of a-z A-Z 0-9 . _ -)",
                       what, name, max);
    }
    return 0;
}

void rpc_scheduled(const struct dsd *d, protobuf_c_boolean *has, int64_t *at_ms)
{
    *at_ms = core_scheduled_ms(d->core);
    *has = *at_ms > 0;
}

/* SQLite and the core count in int64_t. */
static bool numbers_fit(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        const void *at = (const char *)message + field->offset;
        size_t count = 1;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            count =
                *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
            at = *(const void *const *)at;
        }
        for (size_t k = 0; k < count; k++) {
            if (field->type == PROTOBUF_C_TYPE_UINT64 && ((const uint64_t *)at)[k] > INT64_MAX) {
                return false;
            }
            const ProtobufCMessage *inner =
                field->type == PROTOBUF_C_TYPE_MESSAGE ? ((ProtobufCMessage *const *)at)[k] : NULL;
            if (inner != NULL && !numbers_fit(inner)) {
                return false;
            }
        }
    }
    return true;
}

/* ------------------------------------------------------------------ HELLO */

static int check_hello(struct peer *peer, const Ds__Hello *hello, struct err *err)
{
    if (hello->protocol != RPC_PROTOCOL) {
        return err_set(err, ERR_PROTOCOL,
                       "this dsd (%s) speaks protocol %d, %.31s %.31s speaks %u (install the same "
                       "version on both "
                       "sides)",
                       DS_VERSION, RPC_PROTOCOL, hello->program, hello->version, hello->protocol);
    }
    const char *user = peer->conn->peer.user;
    if (user[0] == 0 && hello->user != NULL) {
        TRY(rpc_check_name(hello->user, TRANSPORT_USER_MAX, "user", err));
        user = hello->user;
    }
    snprintf(peer->user, sizeof peer->user, "%s", user[0] != 0 ? user : "unknown");
    snprintf(peer->program, sizeof peer->program, "%s", hello->program);
    snprintf(peer->version, sizeof peer->version, "%s", hello->version);
    return 0;
}

static void serve_hello(struct call *call, const Ds__Hello *hello)
{
    struct peer *peer = call->peer;
    struct dsd *d = call->dsd;
    struct err err = {0};
    if (check_hello(peer, hello, &err) != 0) {
        struct conn *conn = peer->conn;
        call_fail(call, err.code, "%s", err.text);
        conn_finish(conn, err.text);
        return;
    }
    conn_greeted(peer->conn);
    Ds__HelloReply reply = DS__HELLO_REPLY__INIT;
    reply.protocol = RPC_PROTOCOL;
    reply.version = (char *)DS_VERSION;
    reply.term = d->term;
    reply.cluster = (char *)d->config->core.cluster;
    call_reply(call, &reply.base);
}

/* ------------------------------------------------------------------ frames */

/* Says why, to the peer and to the log. A request in a sound frame from a peer that said HELLO
 * costs it nothing more: it may be of a newer version. Anything else ends the connection. */
static void refuse(struct conn *conn, const struct frame *f, int code, const char *text)
{
    if (f->kind != FRAME_REQUEST) {
        conn_finish(conn, text);
        return;
    }
    rpc_pack_error(conn_out(conn), f->method, f->request_id, code, text);
    conn_touch(conn);
    if (conn->greeted) {
        log_warn("refused a request of %s: %s", conn->peer.text, text);
    } else {
        conn_finish(conn, text);
    }
}

static void serve_request(struct peer *peer, const struct frame *f)
{
    struct conn *conn = peer->conn;
    const struct rpc_info *info = rpc_find(f->method);
    rpc_handler *handler = rpc_handler_of(f->method);
    char text[160];
    if (info == NULL || (handler == NULL && f->method != RPC_HELLO)) {
        snprintf(text, sizeof text, "method %u is not one that dsd %s serves (a newer peer?)",
                 f->method, DS_VERSION);
        refuse(conn, f, ERR_PROTOCOL, text);
        return;
    }
    if (!conn->greeted && f->method != RPC_HELLO) {
        snprintf(text, sizeof text, "the first request was %s, not HELLO", info->name);
        refuse(conn, f, ERR_PROTOCOL, text);
        return;
    }
    struct err err = {0};
    ProtobufCMessage *request = NULL;
    if (rpc_unpack(f, &request, &err) != 0) {
        refuse(conn, f, ERR_PROTOCOL, err.text);
        return;
    }
    struct call *call = call_begin(peer, f);
    if (!numbers_fit(request)) {
        call_fail(call, ERR_INVALID, "%s: a number is over 9223372036854775807", info->name);
    } else if (f->method == RPC_HELLO) {
        serve_hello(call, (const Ds__Hello *)request);
    } else if (served[f->method].worker && peer->session == NULL) {
        call_fail(call, ERR_DENIED, "%s is for workers: say WORKER_REGISTER first", info->name);
    } else {
        handler(call, request);
    }
    rpc_free(request);
}

static void on_frame(struct conn *conn, const struct frame *f)
{
    struct peer *peer = conn->user;
    if (peer == NULL) {
        peer = mem_alloc(sizeof *peer);
        peer->dsd = conn->hub->world;
        peer->conn = conn;
        LIST_INIT(&peer->calls);
        conn->user = peer;
    }
    if (f->kind == FRAME_REQUEST) {
        serve_request(peer, f);
    } else if (f->kind == FRAME_ONEWAY) {
        refuse(conn, f, ERR_PROTOCOL, "it sent a one-way frame; dsd takes none");
    } else if (peer->session == NULL || !session_answer(peer->session, f)) {
        refuse(conn, f, ERR_PROTOCOL, "it answered a request that was never made");
    }
}

static void on_over(struct conn *conn)
{
    struct peer *peer = conn->user;
    if (peer != NULL) {
        call_peer_gone(peer);
        session_destroy(peer->session);
        free(peer);
        conn->user = NULL;
    }
}

const struct conn_handler rpc_conn_handler = {.frame = on_frame, .over = on_over};
