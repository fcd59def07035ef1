#include "daemon/transport.h"

#include <arpa/inet.h>
#include <assert.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES 65536

void transport_init(struct transport *t, uv_loop_t *loop, enum transport_kind kind,
                    const struct transport_events *events)
{
    *t = (struct transport){.kind = kind, .events = events};
    int rc =
        kind == TRANSPORT_UNIX ? uv_pipe_init(loop, &t->u.pipe, 0) : uv_tcp_init(loop, &t->u.tcp);
    assert(rc == 0); /* only fails for wrong flags */
    t->u.handle.data = t;
}

static void describe_user(struct transport_peer *peer, const struct ucred *cred)
{
    struct passwd entry;
    struct passwd *found = NULL;
    char memory[4096];
    if (getpwuid_r(cred->uid, &entry, memory, sizeof memory, &found) == 0 && found != NULL &&
        strlen(found->pw_name) <= TRANSPORT_USER_MAX) {
        snprintf(peer->user, sizeof peer->user, "%s", found->pw_name);
    } else {
        snprintf(peer->user, sizeof peer->user, "%u", (unsigned)cred->uid);
    }
    snprintf(peer->text, sizeof peer->text, "user %s (pid %d)", peer->user, (int)cred->pid);
}

static void describe_address(struct transport_peer *peer, const struct sockaddr_storage *addr)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (addr->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, addr, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
        snprintf(peer->text, sizeof peer->text, "%s:%u", host, (unsigned)ntohs(in.sin_port));
    } else if (addr->ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, addr, sizeof in6);
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        snprintf(peer->text, sizeof peer->text, "[%s]:%u", host, (unsigned)ntohs(in6.sin6_port));
    }
}

static int describe(struct transport *t, struct transport_peer *peer, struct err *err)
{
    *peer = (struct transport_peer){.text = "unknown peer"};
    if (t->kind == TRANSPORT_UNIX) {
        int fd;
        struct ucred cred;
        socklen_t len = sizeof cred;
        if (uv_fileno(&t->u.handle, &fd) != 0 ||
            getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
            return err_set_errno(err, "cannot tell the user of a local connection");
        }
        describe_user(peer, &cred);
        return 0;
    }
    struct sockaddr_storage addr;
    int len = sizeof addr;
    if (uv_tcp_getpeername(&t->u.tcp, (struct sockaddr *)&addr, &len) == 0) {
        describe_address(peer, &addr);
    }
    uv_tcp_nodelay(&t->u.tcp, 1);
    uv_tcp_keepalive(&t->u.tcp, 1, 30);
    return 0;
}

int transport_accept(struct transport *t, uv_stream_t *listening, struct transport_peer *peer,
                     struct err *err)
{
    int rc = uv_accept(listening, &t->u.stream);
    if (rc != 0) {
        return err_set(err, ERR_IO, "cannot accept a connection: %s", uv_strerror(rc));
    }
    return describe(t, peer, err);
}

int transport_open(struct transport *t, int fd, struct transport_peer *peer, struct err *err)
{
    int rc = t->kind == TRANSPORT_UNIX ? uv_pipe_open(&t->u.pipe, fd) : uv_tcp_open(&t->u.tcp, fd);
    if (rc != 0) {
        close(fd);
        return err_set(err, ERR_IO, "cannot use a socket: %s", uv_strerror(rc));
    }
    return describe(t, peer, err);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *room)
{
    (void)suggested;
    struct transport *t = handle->data;
    *room = uv_buf_init((char *)buf_reserve(&t->in, READ_BYTES), READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *room)
{
    (void)room;
    struct transport *t = stream->data;
    if (got > 0) {
        t->in.len += (size_t)got;
        t->events->bytes(t);
    } else if (got < 0) {
        transport_read_stop(t);
        t->events->end(t, (int)got);
    }
}

void transport_read_start(struct transport *t)
{
    if (!t->reading && !t->closing) {
        t->reading = uv_read_start(&t->u.stream, on_room, on_read) == 0;
    }
}

void transport_read_stop(struct transport *t)
{
    if (t->reading) {
        t->reading = false;
        uv_read_stop(&t->u.stream);
    }
}

static void on_write(uv_write_t *write, int status)
{
    struct transport *t = write->data;
    buf_fini(&t->sending);
    if (t->closing) {
        return;
    }
    if (status != 0) {
        t->events->end(t, status);
    } else {
        t->events->written(t);
    }
}

void transport_write(struct transport *t, struct buf *out)
{
    assert(!transport_is_writing(t));
    if (t->closing || out->len == 0) {
        buf_reset(out);
        return;
    }
    /* Nearly always all of it goes into the kernel at once. */
    uv_buf_t all = uv_buf_init((char *)out->data, (unsigned)out->len);
    int sent = uv_try_write(&t->u.stream, &all, 1);
    if (sent < 0) {
        if (sent != UV_EAGAIN) {
            buf_reset(out);
            t->events->end(t, sent);
            return;
        }
        sent = 0;
    }
    if ((size_t)sent == out->len) {
        buf_reset(out);
        return;
    }
    buf_consume(out, (size_t)sent);
    struct buf empty = t->sending;
    t->sending = *out;
    *out = empty;
    uv_buf_t rest = uv_buf_init((char *)t->sending.data, (unsigned)t->sending.len);
    t->write.data = t;
    int rc = uv_write(&t->write, &t->u.stream, &rest, 1, on_write);
    if (rc != 0) {
        buf_reset(&t->sending);
        t->events->end(t, rc);
    }
}

bool transport_is_writing(const struct transport *t)
{
    return t->sending.len > 0;
}

size_t transport_unsent(const struct transport *t)
{
    return transport_is_writing(t) ? uv_stream_get_write_queue_size(&t->u.stream) : 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct transport *t = handle->data;
    buf_fini(&t->in);
    buf_fini(&t->sending);
    t->events->closed(t);
}

void transport_close(struct transport *t)
{
    if (!t->closing) {
        transport_read_stop(t);
        t->closing = true;
        uv_close(&t->u.handle, on_closed);
    }
}
