#include "worker/conn.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "lib/log.h"
#include "lib/mem.h"

#define READ_BYTES (64u * 1024u)

struct write {
    uv_write_t request;
    struct buf data;
};

struct conn *conn_create(uv_loop_t *loop, bool tcp, uint32_t payload_max, conn_frame_cb on_frame,
                         conn_lost_cb on_lost, void *owner)
{
    struct conn *conn = mem_alloc(sizeof *conn);
    conn->payload_max = payload_max;
    conn->on_frame = on_frame;
    conn->on_lost = on_lost;
    conn->owner = owner;
    if (tcp) {
        uv_tcp_init(loop, &conn->uv.tcp);
    } else {
        uv_pipe_init(loop, &conn->uv.pipe, 0);
    }
    conn->uv.handle.data = conn;
    return conn;
}

static void on_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    buf_fini(&conn->in);
    buf_fini(&conn->out);
    free(conn);
}

void conn_destroy(struct conn *conn)
{
    if (conn != NULL && !conn->closing) {
        conn->closing = true;
        uv_close(&conn->uv.handle, on_closed);
    }
}

static void lose(struct conn *conn, const char *why)
{
    if (!conn->lost && !conn->closing) {
        conn->lost = true;
        uv_read_stop(&conn->uv.stream);
        conn->on_lost(conn, why);
    }
}

/* ---- in */

static void deliver(struct conn *conn)
{
    size_t at = 0;
    conn->delivering = true;
    while (!conn->closing && !conn->lost && !conn->paused) {
        struct frame f;
        size_t used;
        struct err err;
        int rc =
            frame_decode(conn->in.data + at, conn->in.len - at, conn->payload_max, &f, &used, &err);
        if (rc == ERR_AGAIN) {
            break;
        }
        if (rc != 0) {
            lose(conn, err.text);
            break;
        }
        at += used;
        conn->on_frame(conn, &f);
    }
    conn->delivering = false;
    buf_consume(&conn->in, at);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *room)
{
    (void)suggested;
    struct conn *conn = handle->data;
    *room = uv_buf_init((char *)buf_reserve(&conn->in, READ_BYTES), READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room)
{
    (void)room;
    struct conn *conn = stream->data;
    if (got < 0) {
        lose(conn, got == UV_EOF ? "the peer closed it" : uv_strerror((int)got));
        return;
    }
    conn->in.len += (size_t)got;
    deliver(conn);
}

int conn_start(struct conn *conn, struct err *err)
{
    int rc = uv_read_start(&conn->uv.stream, on_alloc, on_read);
    return rc == 0 ? 0 : err_set(err, ERR_IO, "cannot read from a connection: %s", uv_strerror(rc));
}

void conn_pause(struct conn *conn)
{
    conn->paused = true;
    uv_read_stop(&conn->uv.stream);
}

void conn_resume(struct conn *conn)
{
    if (!conn->paused || conn->closing || conn->lost) {
        return;
    }
    conn->paused = false;
    uv_read_start(&conn->uv.stream, on_alloc, on_read);
    if (!conn->delivering) {
        deliver(conn);
    }
}

/* ---- out */

static void flush(struct conn *conn);

static void on_written(uv_write_t *request, int status)
{
    struct write *w = request->data;
    struct conn *conn = request->handle->data;
    buf_fini(&w->data);
    free(w);
    conn->writing = false;
    if (status < 0) {
        lose(conn, uv_strerror(status));
    } else {
        flush(conn);
    }
}

static void flush(struct conn *conn)
{
    if (conn->writing || conn->closing || conn->lost || conn->out.len == 0) {
        return;
    }
    uv_buf_t data = uv_buf_init((char *)conn->out.data, (unsigned)conn->out.len);
    int sent = uv_try_write(&conn->uv.stream, &data, 1);
    if (sent > 0) {
        buf_consume(&conn->out, (size_t)sent);
    }
    if (conn->out.len == 0) {
        return;
    }
    /* The rest, or the error, comes by the ordinary way: a callback is never called from within
     * conn_send. */
    struct write *w = mem_alloc(sizeof *w);
    w->request.data = w;
    w->data = conn->out;
    conn->out = (struct buf){0};
    data = uv_buf_init((char *)w->data.data, (unsigned)w->data.len);
    conn->writing = true;
    int rc = uv_write(&w->request, &conn->uv.stream, &data, 1, on_written);
    if (rc != 0) {
        /* The stream is not connected any more: reading says so. */
        buf_fini(&w->data);
        free(w);
        conn->writing = false;
    }
}

static void sent(struct conn *conn)
{
    flush(conn);
    uv_os_fd_t fd;
    if (conn->out.len > CONN_OUT_BYTES_MAX && uv_fileno(&conn->uv.handle, &fd) == 0) {
        buf_reset(&conn->out);
        shutdown(fd, SHUT_RDWR); /* reading ends, and with it the connection */
    }
}

void conn_send(struct conn *conn, uint16_t method, enum frame_kind kind, uint64_t request_id,
               const ProtobufCMessage *message)
{
    if (rpc_pack(&conn->out, method, kind, request_id, message) != 0 && kind != FRAME_REPLY) {
        log_error("a message of method %u does not fit a frame and was not sent", method);
    }
    sent(conn);
}

void conn_send_error(struct conn *conn, uint16_t method, uint64_t request_id, int code,
                     const char *text)
{
    rpc_pack_error(&conn->out, method, request_id, code, text);
    sent(conn);
}

void conn_send_frame(struct conn *conn, const struct frame *f)
{
    frame_encode(f, &conn->out);
    sent(conn);
}

void conn_answer(struct conn *conn, uint16_t method, uint64_t request_id, int code,
                 const char *text)
{
    if (code != 0) {
        conn_send_error(conn, method, request_id, code, text);
        return;
    }
    Ds__Empty empty = DS__EMPTY__INIT;
    conn_send(conn, method, FRAME_REPLY, request_id, &empty.base);
}
