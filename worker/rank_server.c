#include "worker/rank_server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt.h"
#include "worker/conn.h"
#include "worker/store_keep.h"

#define UNDER_WAY_MAX  256   /* requests of one rank; beyond, its socket is not read */
#define LINGER_MS      500   /* after the rank's exit */
#define GREETING_MS    10000 /* before RANK_HELLO */
#define LINGER_LOOK_MS 100

/* One connection of one rank. */
struct rank_conn {
    struct rank_server *server;
    struct conn *conn;
    bool greeted;
    uint64_t job, epoch;
    uint32_t rank;
    unsigned under_way;
    int64_t close_at_ms; /* 0: never */
    struct rank_conn *next;
};

/* A request on its way to the coordinator. */
struct relay {
    struct rank_server *server;
    struct rank_conn *from; /* NULL: the rank has gone */
    uint64_t job, epoch;
    uint32_t rank;
    struct frame request; /* payload owned */
    bool sent;
    struct relay *next;
};

struct rank_server {
    struct worker *worker;
    uv_pipe_t listener;
    uv_timer_t linger;
    int handles;
    struct rank_conn *conns; /* owned */
    struct relay *relays;    /* owned; oldest first */
};

/* A report is acknowledged only by the coordinator, and a rank's exit is told only after that. */
static bool is_report(uint16_t method)
{
    return method == RPC_STEP_REPORT || method == RPC_SHARD_REPORT || method == RPC_GUARD_REPORT;
}

static void busy(struct rank_server *server, uint64_t job, uint64_t epoch, uint32_t rank, int delta)
{
    struct agent *agent = server->worker->agent;
    struct agent_attempt *a = agent_find(agent, job, epoch);
    if (a != NULL) {
        agent_rank_busy(agent, a, rank, delta);
    }
}

/* ---- relays */

static void relay_free(struct relay *r)
{
    if (r->from != NULL) {
        r->from->under_way--;
    }
    link_cancel(r->server->worker->link, r);
    free((void *)r->request.payload);
    free(r);
}

static void relay_remove(struct relay *r)
{
    struct rank_server *server = r->server;
    struct relay **at = &server->relays;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    bool counts = is_report(r->request.method);
    uint64_t job = r->job;
    uint64_t epoch = r->epoch;
    uint32_t rank = r->rank;
    relay_free(r);
    if (counts) {
        busy(server, job, epoch, rank, -1);
    }
}

static void on_reply(void *ctx, int code, const char *text, const struct frame *f)
{
    struct relay *r = ctx;
    struct rank_conn *from = r->from;
    bool again = code == ERR_AGAIN && is_report(r->request.method);
    if (again || code == ERR_UNREACHABLE) {
        r->sent = false; /* after the next registration */
        if (again) {
            link_drop(r->server->worker->link, text);
        }
        return;
    }
    if (from != NULL && code == 0) {
        struct frame reply = *f;
        reply.request_id = r->request.request_id;
        conn_send_frame(from->conn, &reply);
    } else if (from != NULL) {
        conn_send_error(from->conn, r->request.method, r->request.request_id, code, text);
    }
    relay_remove(r);
    if (from != NULL && from->under_way < UNDER_WAY_MAX / 2) {
        conn_resume(from->conn);
    }
}

static void relay_send(struct relay *r)
{
    r->sent = true;
    link_forward(r->server->worker->link, &r->request, on_reply, r);
}

static void relay_add(struct rank_conn *from, const struct frame *f)
{
    struct relay *r = mem_alloc(sizeof *r);
    uint8_t *payload = mem_alloc(f->payload_bytes);
    memcpy(payload, f->payload, f->payload_bytes);
    r->server = from->server;
    r->from = from;
    r->job = from->job;
    r->epoch = from->epoch;
    r->rank = from->rank;
    r->request = *f;
    r->request.payload = payload;
    struct relay **end = &from->server->relays;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = r;
    if (++from->under_way >= UNDER_WAY_MAX) {
        conn_pause(from->conn);
    }
    if (is_report(f->method)) {
        busy(from->server, r->job, r->epoch, r->rank, +1);
    }
    relay_send(r);
}

static void ignore_reply(void *ctx, int code, const char *text, const struct frame *f)
{
    (void)ctx;
    (void)code;
    (void)text;
    (void)f;
}

void rank_server_link_up(struct rank_server *server)
{
    struct worker *w = server->worker;
    for (size_t i = 0; i < agent_count(w->agent); i++) {
        struct agent_attempt *a = agent_at(w->agent, i);
        struct attempt *t = a->shell;
        if (t == NULL || t->store == NULL || a->stage == AGENT_ENDED) {
            continue;
        }
        for (size_t k = 0; k < store_keep_count(t->store); k++) {
            struct frame f = store_keep_at(t->store, k);
            link_forward(w->link, &f, ignore_reply, NULL);
        }
    }
    for (struct relay *r = server->relays; r != NULL; r = r->next) {
        if (!r->sent) {
            relay_send(r);
        }
    }
}

/* ---- connections */

static void conn_remove(struct rank_conn *c)
{
    struct rank_server *server = c->server;
    struct rank_conn **at = &server->conns;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    /* Reports go on; nobody waits for the rest any more. */
    struct relay *next;
    for (struct relay *r = server->relays; r != NULL; r = next) {
        next = r->next;
        if (r->from == c && is_report(r->request.method)) {
            r->from = NULL;
        } else if (r->from == c) {
            relay_remove(r);
        }
    }
    conn_destroy(c->conn);
    bool greeted = c->greeted;
    uint64_t job = c->job;
    uint64_t epoch = c->epoch;
    uint32_t rank = c->rank;
    free(c);
    if (greeted) {
        busy(server, job, epoch, rank, -1);
    }
}

static void on_lost(struct conn *conn, const char *why)
{
    (void)why;
    conn_remove(conn->owner);
}

/* A rank that comes back says again what was not acknowledged, so what waits here from before is
 * dropped. */
static void drop_waiting(struct rank_server *server, const struct rank_conn *c)
{
    struct relay *next;
    for (struct relay *r = server->relays; r != NULL; r = next) {
        next = r->next;
        if (r->from == NULL && !r->sent && r->job == c->job && r->epoch == c->epoch &&
            r->rank == c->rank) {
            relay_remove(r);
        }
    }
}

/* The socket is open to the users of all jobs; each may speak for its own. */
static int check_peer(const struct rank_conn *c, const struct agent_attempt *a, struct err *err)
{
    const struct attempt *t = a->shell;
    struct ucred peer = {0};
    socklen_t bytes = sizeof peer;
    uv_os_fd_t fd;
    if (uv_fileno(&c->conn->uv.handle, &fd) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
        return err_set_errno(err, "cannot tell who speaks");
    }
    if (t == NULL || (peer.uid != t->uid && peer.uid != geteuid())) {
        return err_set(err, ERR_DENIED, "job %" PRIu64 " is not of user %u", a->job, peer.uid);
    }
    return 0;
}

static int greet(struct rank_conn *c, const Ds__RankHello *hello, struct err *err)
{
    struct worker *w = c->server->worker;
    const struct agent_attempt *a = agent_find(w->agent, hello->job, hello->epoch);
    if (a == NULL || a->stage == AGENT_ENDED) {
        return err_set(err, ERR_STALE,
                       "job %" PRIu64 " epoch %" PRIu64 " is not running on this node", hello->job,
                       hello->epoch);
    }
    if (!agent_has_rank(a, hello->rank)) {
        return err_set(err, ERR_INVALID, "rank %" PRIu32 " of job %" PRIu64 " is not on this node",
                       hello->rank, hello->job);
    }
    if (c->greeted) {
        return err_set(err, ERR_PROTOCOL, "RANK_HELLO was said before");
    }
    TRY(check_peer(c, a, err));
    c->greeted = true;
    c->close_at_ms = 0;
    c->job = hello->job;
    c->epoch = hello->epoch;
    c->rank = hello->rank;
    c->conn->payload_max = FRAME_PAYLOAD_MAX;
    drop_waiting(c->server, c);
    busy(c->server, c->job, c->epoch, c->rank, +1);
    return 0;
}

static int keep_value(struct rank_conn *c, const struct frame *f, const Ds__StoreSet *set,
                      struct err *err)
{
    struct agent_attempt *a = agent_find(c->server->worker->agent, c->job, c->epoch);
    struct attempt *t = a != NULL ? a->shell : NULL;
    if (t == NULL || a->stage == AGENT_ENDED) {
        return err_set(err, ERR_STALE, "job %" PRIu64 " epoch %" PRIu64 " has ended", c->job,
                       c->epoch);
    }
    if (t->store == NULL) {
        t->store = store_keep_create(t->dir);
    }
    return store_keep_set(t->store, f, set->key, err);
}

/* A rank speaks for its own attempt only. */
static int check_origin(const struct rank_conn *c, uint64_t job, uint64_t epoch, struct err *err)
{
    if (!c->greeted) {
        return err_set(err, ERR_PROTOCOL, "RANK_HELLO comes first");
    }
    if (job != c->job || epoch != c->epoch) {
        return err_set(err, ERR_DENIED, "this connection is of job %" PRIu64 " epoch %" PRIu64,
                       c->job, c->epoch);
    }
    return 0;
}

static int take(struct rank_conn *c, const struct frame *f, const ProtobufCMessage *message,
                struct err *err)
{
    const Ds__StoreSet *set = (const Ds__StoreSet *)message;
    const Ds__StoreGet *get = (const Ds__StoreGet *)message;
    const Ds__StepReport *step = (const Ds__StepReport *)message;
    const Ds__ShardReport *shard = (const Ds__ShardReport *)message;
    const Ds__GuardReport *guard = (const Ds__GuardReport *)message;
    switch (f->method) {
    case RPC_STEP_REPORT:
        TRY(check_origin(c, step->job, step->epoch, err));
        break;
    case RPC_SHARD_REPORT:
        TRY(check_origin(c, shard->job, shard->epoch, err));
        break;
    case RPC_GUARD_REPORT:
        TRY(check_origin(c, guard->job, guard->epoch, err));
        break;
    case RPC_STORE_GET:
        TRY(check_origin(c, get->job, get->epoch, err));
        break;
    case RPC_STORE_SET:
        TRY(check_origin(c, set->job, set->epoch, err));
        TRY(keep_value(c, f, set, err));
        break;
    default:
        return err_set(err, ERR_PROTOCOL, "method %u is not for a worker", f->method);
    }
    relay_add(c, f);
    return 0;
}

static void on_frame(struct conn *conn, const struct frame *f)
{
    struct rank_conn *c = conn->owner;
    ProtobufCMessage *message = NULL;
    struct err err;
    if (f->kind != FRAME_REQUEST) {
        return;
    }
    int rc = rpc_unpack(f, &message, &err);
    if (rc == 0 && f->method == RPC_RANK_HELLO) {
        rc = greet(c, (const Ds__RankHello *)message, &err);
        conn_answer(conn, f->method, f->request_id, rc, err.text);
    } else if (rc == 0) {
        rc = take(c, f, message, &err);
        if (rc != 0) {
            conn_send_error(conn, f->method, f->request_id, rc, err.text);
        }
    } else {
        conn_send_error(conn, f->method, f->request_id, rc, err.text);
    }
    rpc_free(message);
}

static void on_linger(uv_timer_t *timer)
{
    struct rank_server *server = timer->data;
    int64_t now = clock_boot_ms();
    bool more = false;
    struct rank_conn *next;
    for (struct rank_conn *c = server->conns; c != NULL; c = next) {
        next = c->next;
        if (c->close_at_ms != 0 && c->close_at_ms <= now) {
            conn_remove(c);
        } else if (c->close_at_ms != 0) {
            more = true;
        }
    }
    if (!more) {
        uv_timer_stop(timer);
    }
}

static void close_in(struct rank_conn *c, int64_t ms)
{
    c->close_at_ms = clock_boot_ms() + ms;
    if (!uv_is_active((uv_handle_t *)&c->server->linger)) {
        uv_timer_start(&c->server->linger, on_linger, LINGER_LOOK_MS, LINGER_LOOK_MS);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct rank_server *server = listener->data;
    if (status != 0) {
        log_warn("report socket: %s", uv_strerror(status));
        return;
    }
    struct rank_conn *c = mem_alloc(sizeof *c);
    struct err err;
    c->server = server;
    c->conn =
        conn_create(&server->worker->loop, false, FRAME_PAYLOAD_MAX_HELLO, on_frame, on_lost, c);
    c->next = server->conns;
    server->conns = c;
    close_in(c, GREETING_MS);
    if (uv_accept(listener, &c->conn->uv.stream) != 0 || conn_start(c->conn, &err) != 0) {
        conn_remove(c);
    }
}

/* ---- what the attempts want of it */

static bool is_of(const struct rank_conn *c, const struct agent_attempt *a)
{
    return c->greeted && c->job == a->job && c->epoch == a->epoch;
}

void rank_server_stop(struct rank_server *server, const struct agent_attempt *a, const char *reason)
{
    Ds__RankStop stop = DS__RANK_STOP__INIT;
    stop.reason = (char *)reason;
    for (struct rank_conn *c = server->conns; c != NULL; c = c->next) {
        if (is_of(c, a)) {
            conn_send(c->conn, RPC_RANK_STOP, FRAME_ONEWAY, 0, &stop.base);
        }
    }
}

void rank_server_exited(struct rank_server *server, const struct agent_attempt *a, uint32_t rank)
{
    for (struct rank_conn *c = server->conns; c != NULL; c = c->next) {
        if (is_of(c, a) && c->rank == rank && c->close_at_ms == 0) {
            close_in(c, LINGER_MS);
        }
    }
}

void rank_server_forget(struct rank_server *server, const struct agent_attempt *a)
{
    struct rank_conn *next_conn;
    for (struct rank_conn *c = server->conns; c != NULL; c = next_conn) {
        next_conn = c->next;
        if (is_of(c, a)) {
            conn_remove(c);
        }
    }
    struct relay *next_relay;
    for (struct relay *r = server->relays; r != NULL; r = next_relay) {
        next_relay = r->next;
        if (r->job == a->job && r->epoch == a->epoch) {
            relay_remove(r);
        }
    }
}

/* ---- life */

int rank_server_create(struct rank_server **out, struct worker *w, struct err *err)
{
    struct rank_server *server = mem_alloc(sizeof *server);
    server->worker = w;
    uv_pipe_init(&w->loop, &server->listener, 0);
    uv_timer_init(&w->loop, &server->linger);
    server->listener.data = server;
    server->linger.data = server;
    server->handles = 2;
    *out = server;
    /* The lock of the state folder is ours, so a socket there is a dead worker's. */
    unlink(w->report_socket);
    int rc = uv_pipe_bind(&server->listener, w->report_socket);
    if (rc == 0) {
        /* Ranks run as the users of their jobs when we are root. */
        if (geteuid() == 0) {
            rc = uv_pipe_chmod(&server->listener, UV_READABLE | UV_WRITABLE);
        }
    }
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&server->listener, 128, on_connection);
    }
    return rc == 0
               ? 0
               : err_set(err, ERR_IO, "cannot listen on %s: %s", w->report_socket, uv_strerror(rc));
}

static void on_closed(uv_handle_t *handle)
{
    struct rank_server *server = handle->data;
    if (--server->handles == 0) {
        free(server);
    }
}

void rank_server_destroy(struct rank_server *server)
{
    if (server == NULL) {
        return;
    }
    while (server->conns != NULL) {
        conn_remove(server->conns);
    }
    while (server->relays != NULL) {
        relay_remove(server->relays);
    }
    uv_close((uv_handle_t *)&server->listener, on_closed);
    uv_close((uv_handle_t *)&server->linger, on_closed);
}
