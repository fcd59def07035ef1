/* Back-pressure: a connection is `ready` while fewer than in_flight_max of its requests wait for a
 * commit and less than out_high_bytes of replies wait to be sent. When it is not, its frames stay
 * in the input buffer and its socket is not read, so the kernel's window closes and the peer's
 * sending blocks. It becomes ready again through a commit (conn_done) or through the peer reading
 * (on_written); the hub then serves the waiting frames in the same turn. */
#include "daemon/conn.h"

#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/mem.h"

#define IDLE_BYTES_MAX (256u * 1024u)

const struct conn_limits conn_limits_default = {
    .connections_max = 8192,
    .in_flight_max = 256,
    .out_high_bytes = 1024 * 1024,
    .out_max_bytes = 64 * 1024 * 1024,
    .first_frame_ms = 10000,
    .frame_ms = 10000,
    .stalled_ms = 30000,
    .linger_ms = 5000,
};

static bool ready(const struct conn *c)
{
    const struct conn_limits *limits = c->hub->limits;
    return !c->over && c->in_flight < limits->in_flight_max &&
           c->out.len + transport_unsent(&c->transport) < limits->out_high_bytes;
}

static int64_t now_of(const struct conn *c)
{
    return (int64_t)uv_now(c->hub->loop);
}

void conn_touch(struct conn *c)
{
    if (!c->touched && !c->over) {
        c->touched = true;
        TAILQ_INSERT_TAIL(&c->hub->touched, c, turn);
    }
}

static void untouch(struct conn *c)
{
    if (c->touched) {
        c->touched = false;
        TAILQ_REMOVE(&c->hub->touched, c, turn);
    }
}

void conn_close(struct conn *c, const char *why)
{
    if (c->over) {
        return;
    }
    if (why != NULL) {
        log_warn("closed the connection of %s: %s", c->peer.text, why);
    }
    c->over = true;
    untouch(c);
    LIST_REMOVE(c, all);
    c->hub->count--;
    c->hub->handler->over(c);
    transport_close(&c->transport);
}

void conn_finish(struct conn *c, const char *why)
{
    if (c->over) {
        return;
    }
    if (why != NULL) {
        log_warn("closing the connection of %s: %s", c->peer.text, why);
    }
    /* As if the peer had closed its side after this frame: what follows is not looked at. */
    transport_read_stop(&c->transport);
    buf_reset(&c->transport.in);
    c->in_used = 0;
    if (!c->ended) {
        c->ended = true;
        c->ended_ms = now_of(c);
    }
    conn_touch(c);
}

/* Serves what is in the input buffer, as far as it may, and sees to reading. */
static void serve(struct conn *c)
{
    if (c->serving) {
        return;
    }
    c->serving = true;
    struct buf *in = &c->transport.in;
    while (ready(c) && c->in_used < in->len) {
        struct frame f;
        struct err err = {0};
        size_t used;
        int rc =
            frame_decode(in->data + c->in_used, in->len - c->in_used,
                         c->greeted ? FRAME_PAYLOAD_MAX : FRAME_PAYLOAD_MAX_HELLO, &f, &used, &err);
        if (rc == ERR_AGAIN) {
            break;
        }
        if (rc != 0) {
            conn_close(c, err.text);
            break;
        }
        c->in_used += used;
        c->partial_since_ms = 0;
        c->hub->handler->frame(c, &f);
    }
    c->serving = false;
    if (c->over) {
        return;
    }
    buf_consume(in, c->in_used);
    c->in_used = 0;
    if (in->len == 0 && in->capacity > IDLE_BYTES_MAX) {
        buf_fini(
            in); /* a large frame went through; thousands of idle connections must not keep that */
    }
    if (!ready(c)) {
        transport_read_stop(&c->transport);
        c->partial_since_ms = 0;
        return;
    }
    if (in->len > 0 && c->partial_since_ms == 0) {
        c->partial_since_ms = now_of(c);
    }
    if (c->ended) {
        conn_touch(c); /* closes when all is answered */
    } else {
        transport_read_start(&c->transport);
    }
}

void conn_busy(struct conn *c)
{
    c->in_flight++;
}

void conn_done(struct conn *c)
{
    c->in_flight--;
    conn_touch(c);
}

struct buf *conn_out(struct conn *c)
{
    return &c->out;
}

void conn_greeted(struct conn *c)
{
    c->greeted = true;
}

static void send_out(struct conn *c)
{
    if (!transport_is_writing(&c->transport) && c->out.len > 0) {
        transport_write(&c->transport, &c->out);
    }
    if (c->over) {
        return;
    }
    if (c->out.len == 0 && c->out.capacity > IDLE_BYTES_MAX) {
        buf_fini(&c->out);
    }
    size_t waiting = c->out.len + transport_unsent(&c->transport);
    if (waiting > c->hub->limits->out_max_bytes) {
        conn_close(c, "it does not read what is sent to it");
    } else if (c->ended && waiting == 0 && c->in_flight == 0) {
        conn_close(c, NULL);
    }
}

/* ------------------------------------------------------------------ from the transport */

static struct conn *conn_of(struct transport *t)
{
    return (struct conn *)((char *)t - offsetof(struct conn, transport));
}

static void on_bytes(struct transport *t)
{
    serve(conn_of(t));
}

static void on_end(struct transport *t, int uv_status)
{
    struct conn *c = conn_of(t);
    if (c->over) {
        return;
    }
    if (uv_status != UV_EOF) {
        bool common = uv_status == UV_ECONNRESET || uv_status == UV_EPIPE;
        conn_close(c, common ? NULL : uv_strerror(uv_status));
        return;
    }
    if (c->transport.in.len > c->in_used && ready(c)) {
        conn_close(c, "it ended in the middle of a frame");
        return;
    }
    c->ended = true;
    c->ended_ms = now_of(c);
    conn_touch(c);
}

static void on_written(struct transport *t)
{
    struct conn *c = conn_of(t);
    c->unsent_since_ms = 0;
    c->unsent = 0;
    conn_touch(c);
}

static void on_closed(struct transport *t)
{
    struct conn *c = conn_of(t);
    buf_fini(&c->out);
    free(c);
}

static const struct transport_events transport_events = {
    .bytes = on_bytes, .end = on_end, .written = on_written, .closed = on_closed};

/* ------------------------------------------------------------------ the hub */

void conn_hub_init(struct conn_hub *hub, uv_loop_t *loop, const struct conn_limits *limits,
                   const struct conn_handler *handler, void *world)
{
    *hub = (struct conn_hub){.loop = loop, .limits = limits, .handler = handler, .world = world};
    LIST_INIT(&hub->all);
    TAILQ_INIT(&hub->touched);
}

static struct conn *create(struct conn_hub *hub, enum transport_kind kind)
{
    struct conn *c = mem_alloc(sizeof *c);
    c->hub = hub;
    c->opened_ms = (int64_t)uv_now(hub->loop);
    transport_init(&c->transport, hub->loop, kind, &transport_events);
    LIST_INSERT_HEAD(&hub->all, c, all);
    hub->count++;
    return c;
}

/* Takes back a connection that the handler never heard of. */
static void discard(struct conn *c, const char *why)
{
    log_warn("refused a connection: %s", why);
    c->over = true;
    LIST_REMOVE(c, all);
    c->hub->count--;
    transport_close(&c->transport);
}

void conn_hub_accept(struct conn_hub *hub, uv_stream_t *listening, enum transport_kind kind)
{
    struct conn *c = create(hub, kind);
    struct err err = {0};
    if (transport_accept(&c->transport, listening, &c->peer, &err) != 0) {
        discard(c, err.text);
    } else if (hub->count > hub->limits->connections_max) {
        char why[128];
        snprintf(why, sizeof why, "%zu are open, which is the limit (limits.connections)",
                 hub->limits->connections_max);
        discard(c, why);
    } else {
        transport_read_start(&c->transport);
    }
}

struct conn *conn_hub_open(struct conn_hub *hub, int fd, enum transport_kind kind)
{
    struct conn *c = create(hub, kind);
    struct err err = {0};
    if (transport_open(&c->transport, fd, &c->peer, &err) != 0) {
        discard(c, err.text);
        return NULL;
    }
    transport_read_start(&c->transport);
    return c;
}

void conn_hub_serve(struct conn_hub *hub)
{
    struct conn *c = TAILQ_FIRST(&hub->touched);
    while (c != NULL) {
        struct conn *next = TAILQ_NEXT(c, turn);
        serve(c);
        c = next;
    }
}

void conn_hub_send(struct conn_hub *hub)
{
    struct conn *c;
    while ((c = TAILQ_FIRST(&hub->touched)) != NULL) {
        untouch(c);
        send_out(c);
    }
}

static const char *missed(struct conn *c, int64_t now_ms, char *text, size_t bytes)
{
    const struct conn_limits *limits = c->hub->limits;
    if (!c->greeted && now_ms - c->opened_ms >= limits->first_frame_ms) {
        snprintf(text, bytes, "no HELLO within %lld s", (long long)limits->first_frame_ms / 1000);
        return text;
    }
    if (c->partial_since_ms > 0) {
        int64_t allowed = limits->frame_ms + (int64_t)c->transport.in.len / 64;
        if (now_ms - c->partial_since_ms >= allowed) {
            snprintf(text, bytes, "a frame came too slowly: %zu bytes of it in %lld s",
                     c->transport.in.len, (long long)(now_ms - c->partial_since_ms) / 1000);
            return text;
        }
    }
    size_t unsent = transport_unsent(&c->transport);
    if (unsent == 0 || unsent != c->unsent) {
        c->unsent = unsent;
        c->unsent_since_ms = now_ms;
    } else if (now_ms - c->unsent_since_ms >= limits->stalled_ms) {
        snprintf(text, bytes, "it took nothing of %zu waiting bytes for %lld s",
                 unsent + c->out.len, (long long)limits->stalled_ms / 1000);
        return text;
    }
    return NULL;
}

void conn_hub_sweep(struct conn_hub *hub, int64_t now_ms)
{
    struct conn *c = LIST_FIRST(&hub->all);
    while (c != NULL) {
        struct conn *next = LIST_NEXT(c, all);
        char text[160];
        const char *why = missed(c, now_ms, text, sizeof text);
        if (why != NULL) {
            conn_close(c, why);
        } else if (c->ended && now_ms - c->ended_ms >= hub->limits->linger_ms) {
            conn_close(c, NULL);
        }
        c = next;
    }
}

void conn_hub_close_all(struct conn_hub *hub)
{
    while (!LIST_EMPTY(&hub->all)) {
        conn_close(LIST_FIRST(&hub->all), NULL);
    }
}
