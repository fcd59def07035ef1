#include "worker/link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/version.h"
#include "worker/conn.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   2000
#define STEADY_MS        1000  /* a link that lasted so long is no reason to hold back */
#define GREETING_MS      10000 /* for connecting and HELLO */
#define REGISTER_MS      60000

enum state { IDLE, CONNECTING, GREETING, REGISTERING, UP };

struct request {
    uint64_t id;
    link_reply_cb cb;
    void *ctx;
};
struct order {
    uint64_t token, request_id;
    uint16_t method;
};

struct link {
    uv_loop_t *loop;
    const char *address;
    const struct link_ops *ops;
    void *owner;
    enum state state;
    struct conn *conn; /* owned, or NULL */
    uv_timer_t timer;  /* of the state: the pause, or how long it may take */
    uv_timer_t heartbeat;
    int timers_open;
    bool destroyed;
    uv_getaddrinfo_t resolving;
    bool is_resolving;
    unsigned address_turn; /* a host may have several: each try takes the next */
    int64_t backoff_ms;
    unsigned seed;
    char trouble[512]; /* last one logged, so that the same is said once */
    int64_t heard_at_ms, up_since_ms;
    uint64_t lease_ms, term;
    char local[INET6_ADDRSTRLEN];
    uint64_t next_id, next_token;
    struct request *requests; /* owned */
    size_t request_count, request_capacity;
    struct order *orders; /* owned */
    size_t order_count, order_capacity;
};

static void dial(struct link *link);

/* ---- requests and orders */

static uint64_t add_request(struct link *link, link_reply_cb cb, void *ctx)
{
    void *requests = link->requests;
    mem_grow(&requests, &link->request_capacity, link->request_count + 1, sizeof *link->requests);
    link->requests = requests;
    uint64_t id = link->next_id++;
    link->requests[link->request_count++] = (struct request){id, cb, ctx};
    return id;
}

static void request(struct link *link, uint16_t method, const ProtobufCMessage *message,
                    link_reply_cb cb, void *ctx)
{
    uint64_t id = add_request(link, cb, ctx);
    conn_send(link->conn, method, FRAME_REQUEST, id, message);
}

void link_request(struct link *link, uint16_t method, const ProtobufCMessage *message,
                  link_reply_cb cb, void *ctx)
{
    if (link->state != UP) {
        cb(ctx, ERR_UNREACHABLE, "no coordinator", NULL);
        return;
    }
    request(link, method, message, cb, ctx);
}

void link_forward(struct link *link, const struct frame *f, link_reply_cb cb, void *ctx)
{
    if (link->state != UP) {
        cb(ctx, ERR_UNREACHABLE, "no coordinator", NULL);
        return;
    }
    struct frame out = *f;
    out.kind = FRAME_REQUEST;
    out.request_id = add_request(link, cb, ctx);
    conn_send_frame(link->conn, &out);
}

void link_cancel(struct link *link, const void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < link->request_count; i++) {
        if (link->requests[i].ctx != ctx) {
            link->requests[kept++] = link->requests[i];
        }
    }
    link->request_count = kept;
}

static void on_answer(struct link *link, const struct frame *f)
{
    for (size_t i = 0; i < link->request_count; i++) {
        struct request r = link->requests[i];
        if (r.id != f->request_id) {
            continue;
        }
        link->request_count--;
        memmove(link->requests + i, link->requests + i + 1,
                (link->request_count - i) * sizeof *link->requests);
        struct err err = {0};
        int code = f->kind == FRAME_ERROR ? rpc_unpack_error(f, &err) : 0;
        r.cb(r.ctx, code, err.text, code == 0 ? f : NULL);
        return;
    }
}

static bool take_order(struct link *link, uint64_t token, struct order *order)
{
    for (size_t i = 0; i < link->order_count; i++) {
        if (link->orders[i].token == token) {
            *order = link->orders[i];
            link->orders[i] = link->orders[--link->order_count];
            return true;
        }
    }
    return false;
}

void link_answer(struct link *link, uint64_t token, int code, const char *text)
{
    struct order order;
    if (take_order(link, token, &order)) {
        conn_answer(link->conn, order.method, order.request_id, code, text);
    }
}

void link_reply(struct link *link, uint64_t token, const ProtobufCMessage *message)
{
    struct order order;
    if (take_order(link, token, &order)) {
        conn_send(link->conn, order.method, FRAME_REPLY, order.request_id, message);
    }
}

/* ---- losing it */

static void fail_requests(struct link *link)
{
    struct request *requests = link->requests;
    size_t count = link->request_count;
    link->requests = NULL;
    link->request_count = 0;
    link->request_capacity = 0;
    for (size_t i = 0; i < count; i++) {
        requests[i].cb(requests[i].ctx, ERR_UNREACHABLE, "the link broke", NULL);
    }
    free(requests);
}

static void on_pause_over(uv_timer_t *timer)
{
    dial(timer->data);
}

/* Full jitter above half: many workers must not come back in step. */
static int64_t next_pause(struct link *link)
{
    int64_t pause = link->backoff_ms / 2 + rand_r(&link->seed) % (link->backoff_ms / 2 + 1);
    link->backoff_ms =
        link->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : link->backoff_ms * 2;
    return pause;
}

static void drop(struct link *link, const char *why)
{
    bool was_up = link->state == UP;
    if (was_up && clock_boot_ms() - link->up_since_ms > STEADY_MS) {
        link->backoff_ms = BACKOFF_FIRST_MS;
    }
    if (was_up || strcmp(why, link->trouble) != 0) {
        snprintf(link->trouble, sizeof link->trouble, "%s", why);
        log_warn("%s the coordinator at %s: %s (ranks go on; trying again until it answers)",
                 was_up ? "lost" : "cannot reach", link->address, why);
    }
    link->state = IDLE;
    conn_destroy(link->conn);
    link->conn = NULL;
    link->local[0] = 0;
    link->order_count = 0;
    uv_timer_stop(&link->heartbeat);
    uv_timer_start(&link->timer, on_pause_over, (uint64_t)next_pause(link), 0);
    if (was_up) {
        link->ops->lost(link->owner);
    }
    fail_requests(link);
}

void link_drop(struct link *link, const char *why)
{
    if (link->state != IDLE) {
        drop(link, why);
    }
}

static void on_lost(struct conn *conn, const char *why)
{
    drop(conn->owner, why);
}

static void on_too_slow(uv_timer_t *timer)
{
    struct link *link = timer->data;
    drop(link, link->state == CONNECTING ? "no connection in 10 s" : "it takes too long to answer");
}

/* ---- greeting and registering */

static void on_beaten(void *ctx, int code, const char *text, const struct frame *f)
{
    (void)f;
    struct link *link = ctx;
    if (code != 0 && code != ERR_UNREACHABLE) {
        drop(link, text); /* it no longer knows us: register again */
    }
}

static void on_heartbeat(uv_timer_t *timer)
{
    struct link *link = timer->data;
    if (clock_boot_ms() - link->heard_at_ms > (int64_t)link->lease_ms) {
        drop(link, "it has been silent for a whole lease");
        return;
    }
    Ds__Heartbeat beat = DS__HEARTBEAT__INIT;
    beat.term = link->term;
    request(link, RPC_HEARTBEAT, &beat.base, on_beaten, link);
}

static void on_registered(void *ctx, int code, const char *text, const struct frame *f)
{
    struct link *link = ctx;
    struct err err = {0};
    ProtobufCMessage *message = NULL;
    if (link->state != REGISTERING) {
        return; /* the link broke, which was already said */
    }
    if (code == 0) {
        code = rpc_unpack(f, &message, &err);
        text = err.text;
    }
    if (code == 0) {
        const Ds__WorkerRegisterReply *reply = (const Ds__WorkerRegisterReply *)message;
        link->lease_ms = reply->lease_ms;
        link->term = reply->term;
        link->state = UP;
        code = link->ops->registered(link->owner, reply, &err);
        text = err.text;
        if (code == 0) {
            uint64_t every = reply->heartbeat_ms > 0 ? reply->heartbeat_ms : 1000;
            uv_timer_stop(&link->timer);
            uv_timer_start(&link->heartbeat, on_heartbeat, every, every);
            link->up_since_ms = clock_boot_ms();
            link->trouble[0] = 0;
        } else {
            link->state = REGISTERING;
        }
    }
    rpc_free(message);
    if (code != 0) {
        drop(link, text);
    }
}

static void on_greeted(void *ctx, int code, const char *text, const struct frame *f)
{
    struct link *link = ctx;
    (void)f;
    if (code != 0) {
        if (link->state == GREETING) {
            drop(link, text);
        }
        return;
    }
    link->conn->payload_max = FRAME_PAYLOAD_MAX;
    link->state = REGISTERING;
    uv_timer_start(&link->timer, on_too_slow, REGISTER_MS, 0);
    link->ops->greeted(link->owner);
}

void link_register(struct link *link, const Ds__WorkerRegister *message)
{
    request(link, RPC_WORKER_REGISTER, &message->base, on_registered, link);
}

static void on_frame(struct conn *conn, const struct frame *f)
{
    struct link *link = conn->owner;
    link->heard_at_ms = clock_boot_ms();
    if (f->kind == FRAME_REPLY || f->kind == FRAME_ERROR) {
        on_answer(link, f);
    } else if (f->kind == FRAME_REQUEST && link->state == UP) {
        void *orders = link->orders;
        mem_grow(&orders, &link->order_capacity, link->order_count + 1, sizeof *link->orders);
        link->orders = orders;
        uint64_t token = ++link->next_token;
        link->orders[link->order_count++] = (struct order){token, f->request_id, f->method};
        link->ops->order(link->owner, token, f);
    }
}

/* ---- dialling */

static void remember_local_address(struct link *link)
{
    struct sockaddr_storage at;
    int bytes = sizeof at;
    if (uv_tcp_getsockname(&link->conn->uv.tcp, (struct sockaddr *)&at, &bytes) != 0) {
        return;
    }
    if (at.ss_family == AF_INET) {
        uv_ip4_name((struct sockaddr_in *)&at, link->local, sizeof link->local);
    } else {
        uv_ip6_name((struct sockaddr_in6 *)&at, link->local, sizeof link->local);
    }
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct conn *conn = connect->handle->data;
    if (status == UV_ECANCELED || conn->closing) {
        return; /* the link may be gone */
    }
    struct link *link = conn->owner;
    struct err err;
    if (status != 0) {
        drop(link, uv_strerror(status));
        return;
    }
    if (conn->uv.handle.type == UV_TCP) {
        uv_tcp_nodelay(&conn->uv.tcp, 1);
        remember_local_address(link);
    }
    if (conn_start(conn, &err) != 0) {
        drop(link, err.text);
        return;
    }
    char program[] = "dsworkerd";
    char version[] = DS_VERSION;
    link->state = GREETING;
    link->heard_at_ms = clock_boot_ms();
    Ds__Hello hello = DS__HELLO__INIT;
    hello.protocol = RPC_PROTOCOL;
    hello.program = program;
    hello.version = version;
    request(link, RPC_HELLO, &hello.base, on_greeted, link);
}

static void make_conn(struct link *link, bool tcp)
{
    link->conn = conn_create(link->loop, tcp, FRAME_PAYLOAD_MAX_HELLO, on_frame, on_lost, link);
}

static void on_resolved(uv_getaddrinfo_t *resolving, int status, struct addrinfo *list)
{
    struct link *link = resolving->data;
    link->is_resolving = false;
    if (link->destroyed) {
        uv_freeaddrinfo(list);
        link_destroy(link);
        return;
    }
    if (link->state != CONNECTING) {
        uv_freeaddrinfo(list);
        return; /* it took too long */
    }
    if (status != 0) {
        drop(link, uv_strerror(status));
        return;
    }
    unsigned count = 0;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        count++;
    }
    const struct addrinfo *chosen = list;
    for (unsigned i = link->address_turn++ % count; i > 0; i--) {
        chosen = chosen->ai_next;
    }
    make_conn(link, true);
    int rc =
        uv_tcp_connect(&link->conn->connecting, &link->conn->uv.tcp, chosen->ai_addr, on_connected);
    uv_freeaddrinfo(list);
    if (rc != 0) {
        drop(link, uv_strerror(rc));
    }
}

static void resolve(struct link *link)
{
    char host[256];
    const char *colon = strrchr(link->address, ':');
    const char *first = link->address;
    size_t len = (size_t)(colon - first);
    if (len >= 2 && first[0] == '[' && first[len - 1] == ']') {
        first++;
        len -= 2;
    }
    snprintf(host, sizeof host, "%.*s", (int)len, first);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    link->resolving.data = link;
    int rc = uv_getaddrinfo(link->loop, &link->resolving, on_resolved, host, colon + 1, &hints);
    if (rc != 0) {
        drop(link, uv_strerror(rc));
        return;
    }
    link->is_resolving = true;
}

static void dial(struct link *link)
{
    if (link->is_resolving) {
        uv_timer_start(&link->timer, on_pause_over, (uint64_t)next_pause(link), 0);
        return;
    }
    link->state = CONNECTING;
    uv_timer_start(&link->timer, on_too_slow, GREETING_MS, 0);
    if (strchr(link->address, '/') == NULL) {
        resolve(link);
        return;
    }
    make_conn(link, false);
    uv_pipe_connect(&link->conn->connecting, &link->conn->uv.pipe, link->address, on_connected);
}

/* ---- life */

struct link *link_create(uv_loop_t *loop, const char *address, const struct link_ops *ops,
                         void *owner)
{
    struct link *link = mem_alloc(sizeof *link);
    link->loop = loop;
    link->address = address;
    link->ops = ops;
    link->owner = owner;
    link->next_id = 1;
    link->backoff_ms = BACKOFF_FIRST_MS;
    link->seed = (unsigned)(clock_boot_ns() ^ getpid());
    uv_timer_init(loop, &link->timer);
    uv_timer_init(loop, &link->heartbeat);
    link->timer.data = link;
    link->heartbeat.data = link;
    link->timers_open = 2;
    return link;
}

void link_start(struct link *link)
{
    dial(link);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    link->timers_open--;
    link_destroy(link);
}

void link_destroy(struct link *link)
{
    if (link == NULL) {
        return;
    }
    if (!link->destroyed) {
        link->destroyed = true;
        link->state = IDLE;
        fail_requests(link);
        conn_destroy(link->conn);
        link->conn = NULL;
        uv_close((uv_handle_t *)&link->timer, on_timer_closed);
        uv_close((uv_handle_t *)&link->heartbeat, on_timer_closed);
        if (link->is_resolving) {
            uv_cancel((uv_req_t *)&link->resolving);
        }
    } else if (link->timers_open == 0 && !link->is_resolving) {
        free(link->requests);
        free(link->orders);
        free(link);
    }
}

bool link_is_up(const struct link *link)
{
    return link->state == UP;
}

const char *link_local_address(const struct link *link)
{
    return link->local[0] != 0 ? link->local : NULL;
}
