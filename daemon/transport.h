/* Where a connection's bytes meet its socket, and the only thing that knows what kind of socket
 * that is. Plain bytes for now: a TLS engine will sit between the two calls for writing and reading
 * here and the stream, and nothing above changes. */
#ifndef DAEMON_TRANSPORT_H
#define DAEMON_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "lib/buf.h"
#include "lib/err.h"

#define TRANSPORT_USER_MAX 63

enum transport_kind { TRANSPORT_UNIX, TRANSPORT_TCP };

struct transport;
struct transport_events {
    void (*bytes)(struct transport *t); /* something was appended to t->in */
    void (*end)(struct transport *t,
                int uv_status); /* UV_EOF or an error of reading or writing; nothing more comes */
    void (*written)(struct transport *t); /* the last transport_write is through */
    void (*closed)(struct transport *t);  /* the last call; memory may go */
};

struct transport {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } u;
    enum transport_kind kind;
    const struct transport_events *events;
    bool reading, closing;
    struct buf in;      /* what was read and not yet consumed; consumed by the owner */
    struct buf sending; /* the rest of the write under way */
    uv_write_t write;
};

/* Who is on the other side. */
struct transport_peer {
    char text[128];                    /* for log lines: "127.0.0.1:4242", "user alice (pid 77)" */
    char user[TRANSPORT_USER_MAX + 1]; /* "" when the transport cannot tell */
};

void transport_init(struct transport *t, uv_loop_t *loop, enum transport_kind kind,
                    const struct transport_events *events);
/* Takes the next connection of a listening stream of the same kind. On failure transport_close is
 * still due. */
int transport_accept(struct transport *t, uv_stream_t *listening, struct transport_peer *peer,
                     struct err *err);
/* The same over a connected socket; takes fd. */
int transport_open(struct transport *t, int fd, struct transport_peer *peer, struct err *err);

void transport_read_start(struct transport *t);
void transport_read_stop(struct transport *t);

/* Takes the bytes of *out, which is empty after. Not while a write is under way. */
void transport_write(struct transport *t, struct buf *out);
bool transport_is_writing(const struct transport *t);
/* Bytes of the write under way that the kernel has not taken. */
size_t transport_unsent(const struct transport *t);

void transport_close(struct transport *t);

#endif
