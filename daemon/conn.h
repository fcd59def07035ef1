/* A connection: frames in, frames out, and the limits that keep one peer from harming the others.
 * Knows nothing of what the frames mean: struct conn_handler does. All connections belong to a hub,
 * which does the work of a loop turn for all of them: replies of one turn leave in one write. */
#ifndef DAEMON_CONN_H
#define DAEMON_CONN_H

#include <sys/queue.h>

#include "daemon/transport.h"
#include "proto/frame.h"

struct conn;
struct conn_hub;

struct conn_limits {
    size_t connections_max;
    uint32_t in_flight_max; /* requests of one connection that wait for a commit; above, no more is
                               read */
    size_t out_high_bytes;  /* while this much waits to be sent, no more is read */
    size_t out_max_bytes;   /* at this much the peer is dropped */
    int64_t first_frame_ms; /* to say HELLO */
    int64_t
        frame_ms; /* for the rest of a frame that began, and 1 ms more for each 64 bytes of it */
    int64_t stalled_ms; /* without the peer taking one byte of what waits for it */
    int64_t linger_ms;  /* after the peer closed its side, for the replies still due */
};
extern const struct conn_limits conn_limits_default;

struct conn_handler {
    /* One frame; its payload lives until return. */
    void (*frame)(struct conn *conn, const struct frame *f);
    /* The connection is over and takes nothing more. */
    void (*over)(struct conn *conn);
};

struct conn {
    struct conn_hub *hub; /* borrowed */
    struct transport transport;
    struct transport_peer peer;
    void *user; /* the handler's; borrowed */

    bool greeted; /* the peer said HELLO: large frames are allowed, the hurry is over */
    bool ended;   /* the peer closed its side */
    bool over;    /* nothing is read or sent any more; the memory goes with the socket */
    bool serving; /* in the frame loop */
    uint32_t in_flight;
    size_t in_used; /* consumed part of transport.in */
    struct buf out; /* of this turn */

    int64_t opened_ms, ended_ms;
    int64_t partial_since_ms; /* since when half a frame is there; 0 none */
    int64_t unsent_since_ms;
    size_t unsent;

    bool touched; /* in the hub's list of this turn */
    LIST_ENTRY(conn) all;
    TAILQ_ENTRY(conn) turn;
};

struct conn_hub {
    uv_loop_t *loop;                    /* borrowed */
    const struct conn_limits *limits;   /* borrowed */
    const struct conn_handler *handler; /* borrowed */
    void *world;                        /* the handler's; borrowed */
    size_t count;
    LIST_HEAD(, conn) all;
    TAILQ_HEAD(, conn) touched;
};

void conn_hub_init(struct conn_hub *hub, uv_loop_t *loop, const struct conn_limits *limits,
                   const struct conn_handler *handler, void *world);
/* Takes the connection that waits on a listening socket, or refuses it with a log line. */
void conn_hub_accept(struct conn_hub *hub, uv_stream_t *listening, enum transport_kind kind);
/* Takes a connected socket; NULL (and fd closed) on failure. */
struct conn *conn_hub_open(struct conn_hub *hub, int fd, enum transport_kind kind);

/* Once a turn: serves frames that had to wait, then sends everything. */
void conn_hub_serve(struct conn_hub *hub);
void conn_hub_send(struct conn_hub *hub);
/* Now and then: drops those who missed a deadline. now_ms: uv_now. */
void conn_hub_sweep(struct conn_hub *hub, int64_t now_ms);
void conn_hub_close_all(struct conn_hub *hub);

/* Room for a frame; append it with frame_encode or rpc_pack, then call conn_touch. */
struct buf *conn_out(struct conn *conn);
void conn_touch(struct conn *conn);

/* A request was taken that will be answered after a commit; and it was answered. */
void conn_busy(struct conn *conn);
void conn_done(struct conn *conn);

void conn_greeted(struct conn *conn);
/* why: for the log; NULL when there is nothing to say. finish sends first what is queued. */
void conn_close(struct conn *conn, const char *why);
void conn_finish(struct conn *conn, const char *why);

#endif
