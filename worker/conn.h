/* Frames over a libuv stream: the link to the coordinator, the ranks, the shims. */
#ifndef WORKER_CONN_H
#define WORKER_CONN_H

#include <uv.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/rpc.h"

/* What may wait to be written; a peer that is so far behind is cut off. */
#define CONN_OUT_BYTES_MAX (64u * 1024u * 1024u)

struct conn;
/* May call conn_destroy. f is borrowed for the call. */
typedef void (*conn_frame_cb)(struct conn *conn, const struct frame *f);
/* The stream ended or broke; why is for people. Called at most once; the owner then calls
 * conn_destroy. */
typedef void (*conn_lost_cb)(struct conn *conn, const char *why);

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    uv_connect_t connecting; /* for the owner that dials */
    uint32_t payload_max;
    conn_frame_cb on_frame;
    conn_lost_cb on_lost;
    void *owner; /* borrowed */
    struct buf in;
    struct buf out; /* not yet given to libuv */
    bool writing, lost, closing, paused, delivering;
};

/* tcp: an uninitialised TCP stream, else a Unix one. Connect, accept or open it, then conn_start.
 */
struct conn *conn_create(uv_loop_t *loop, bool tcp, uint32_t payload_max, conn_frame_cb on_frame,
                         conn_lost_cb on_lost, void *owner);
/* Starts reading. */
int conn_start(struct conn *conn, struct err *err);
/* No callback comes after this. Frees once libuv is done with it. NULL is fine. */
void conn_destroy(struct conn *conn);

void conn_send(struct conn *conn, uint16_t method, enum frame_kind kind, uint64_t request_id,
               const ProtobufCMessage *message);
void conn_send_error(struct conn *conn, uint16_t method, uint64_t request_id, int code,
                     const char *text);
/* A frame whose payload is already packed. */
void conn_send_frame(struct conn *conn, const struct frame *f);
/* Answers a request: an Empty reply, or the error. */
void conn_answer(struct conn *conn, uint16_t method, uint64_t request_id, int code,
                 const char *text);

/* Stop and go on reading. Frames already read are kept back too. */
void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);

#endif
