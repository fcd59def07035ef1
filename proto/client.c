/* One socket, one outgoing and one incoming buffer. Whoever waits, for room to send or for a reply,
 * moves bytes both ways, so that client and server can never block each other with full buffers.
 * Replies nobody asked for yet are kept in order. */
#include "proto/client.h"

#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/sock.h"
#include "lib/version.h"

/* Requests are collected up to here before the socket is touched. */
#define SEND_BUFFER_BYTES (64u * 1024u)
#define READ_BYTES        (64u * 1024u)

struct reply {
    uint64_t id;
    ProtobufCMessage *message; /* owned; NULL: outcome says why */
    struct err outcome;
};

struct client {
    char *address;
    int fd;
    bool deaf; /* the peer takes no more; what it said before may still be read */
    uint64_t next_id;
    uint32_t payload_max;
    struct buf out;
    struct buf in;
    struct reply *replies; /* owned; oldest first, from replies_at on */
    size_t replies_at, replies_count, replies_capacity;
    uint64_t *given_up; /* owned; requests whose reply will be dropped */
    size_t given_up_count, given_up_capacity;
    Ds__HelloReply *server;
};

static int lost(struct client *c, const char *why, struct err *err)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
    return err_set(err, ERR_UNREACHABLE, "lost the connection to %s: %s (is it still running?)",
                   c->address, why);
}

static void send_some(struct client *c)
{
    while (c->out.len > 0) {
        ssize_t sent = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
        if (sent >= 0) {
            buf_consume(&c->out, (size_t)sent);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            c->deaf = true;
            buf_reset(&c->out);
        }
    }
}

static bool drop_given_up(struct client *c, uint64_t id)
{
    for (size_t i = 0; i < c->given_up_count; i++) {
        if (c->given_up[i] == id) {
            c->given_up[i] = c->given_up[--c->given_up_count];
            return true;
        }
    }
    return false;
}

static int keep_reply(struct client *c, const struct frame *f, struct err *err)
{
    if (f->kind != FRAME_REPLY && f->kind != FRAME_ERROR) {
        return 0; /* nothing a client could answer */
    }
    if (f->request_id == 0 || f->request_id >= c->next_id) {
        return err_set(err, ERR_PROTOCOL, "%s answered a request that was never sent", c->address);
    }
    if (drop_given_up(c, f->request_id)) {
        return 0;
    }
    struct reply r = {.id = f->request_id};
    if (f->kind == FRAME_ERROR) {
        rpc_unpack_error(f, &r.outcome);
    } else if (rpc_unpack(f, &r.message, &r.outcome) != 0) {
        err_wrap(&r.outcome, "answer of %s", c->address);
    }
    if (c->replies_count == c->replies_capacity && c->replies_at > 0) {
        c->replies_count -= c->replies_at;
        memmove(c->replies, c->replies + c->replies_at, c->replies_count * sizeof r);
        c->replies_at = 0;
    }
    void *array = c->replies;
    mem_grow(&array, &c->replies_capacity, c->replies_count + 1, sizeof r);
    c->replies = array;
    c->replies[c->replies_count++] = r;
    return 0;
}

static int receive_some(struct client *c, struct err *err)
{
    uint8_t *room = buf_reserve(&c->in, READ_BYTES);
    ssize_t got = recv(c->fd, room, READ_BYTES, 0);
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : lost(c, strerror(errno), err);
    }
    if (got == 0) {
        return lost(c, "it closed it", err);
    }
    c->in.len += (size_t)got;
    size_t at = 0;
    int rc = 0;
    while (rc == 0) {
        struct frame f;
        size_t used = 0;
        rc = frame_decode(c->in.data + at, c->in.len - at, c->payload_max, &f, &used, err);
        if (rc == 0) {
            rc = keep_reply(c, &f, err);
            at += used;
        }
    }
    buf_consume(&c->in, at);
    if (rc == ERR_AGAIN) {
        return 0;
    }
    close(c->fd); /* the stream is of no use any more */
    c->fd = -1;
    return err_wrap(err, "%s", c->address);
}

/* One round of moving bytes. ERR_TIMEOUT when nothing could be moved until deadline_ms. */
static int move(struct client *c, int64_t deadline_ms, struct err *err)
{
    if (c->fd < 0) {
        return err_set(err, ERR_UNREACHABLE, "the connection to %s is closed", c->address);
    }
    send_some(c);
    short events = c->out.len > 0 ? POLLIN | POLLOUT : POLLIN;
    int ready = sock_wait(c->fd, events, deadline_ms);
    if (ready == 0) {
        return err_set(err, ERR_TIMEOUT, "no answer from %s in time", c->address);
    }
    return (ready & ~POLLOUT) != 0 ? receive_some(c, err) : 0;
}

static int64_t deadline_of(int64_t timeout_ms)
{
    return timeout_ms < 0 ? -1 : clock_boot_ms() + timeout_ms;
}

int client_send(struct client *c, uint16_t method, const ProtobufCMessage *request, uint64_t *id,
                struct err *err)
{
    if (c->fd < 0 || c->deaf) {
        return err_set(err, ERR_UNREACHABLE, "the connection to %s is closed", c->address);
    }
    if (rpc_pack(&c->out, method, FRAME_REQUEST, c->next_id, request) != 0) {
        return err_set(err, ERR_TOO_LARGE, "request %s is over 4 MiB", rpc_find(method)->name);
    }
    *id = c->next_id++;
    while (c->out.len > SEND_BUFFER_BYTES) {
        TRY(move(c, -1, err));
    }
    return 0;
}

/* The reply to id, or to any request when id is 0, leaves the kept ones. */
static bool take_reply(struct client *c, uint64_t id, struct reply *r)
{
    for (size_t i = c->replies_at; i < c->replies_count; i++) {
        if (id != 0 && c->replies[i].id != id) {
            continue;
        }
        *r = c->replies[i];
        memmove(c->replies + c->replies_at + 1, c->replies + c->replies_at,
                (i - c->replies_at) * sizeof *r);
        c->replies_at++;
        if (c->replies_at == c->replies_count) {
            c->replies_at = c->replies_count = 0;
        }
        return true;
    }
    return false;
}

int client_receive(struct client *c, uint64_t *id, ProtobufCMessage **reply, int *outcome_code,
                   int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    struct reply r;
    while (!take_reply(c, 0, &r)) {
        TRY(move(c, deadline_ms, err));
    }
    *id = r.id;
    *reply = r.message;
    *outcome_code = r.outcome.code;
    if (r.outcome.code != 0 && err != NULL) {
        *err = r.outcome;
    }
    return 0;
}

int client_call(struct client *c, uint16_t method, const ProtobufCMessage *request,
                ProtobufCMessage **reply, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    uint64_t id;
    struct reply r;
    *reply = NULL;
    TRY(client_send(c, method, request, &id, err));
    while (!take_reply(c, id, &r)) {
        int rc = move(c, deadline_ms, err);
        if (rc == ERR_TIMEOUT) {
            void *array = c->given_up;
            mem_grow(&array, &c->given_up_capacity, c->given_up_count + 1, sizeof id);
            c->given_up = array;
            c->given_up[c->given_up_count++] = id;
        }
        TRY(rc);
    }
    *reply = r.message;
    if (r.outcome.code != 0 && err != NULL) {
        *err = r.outcome;
    }
    return r.outcome.code;
}

static int say_hello(struct client *c, const char *program, int64_t timeout_ms, struct err *err)
{
    Ds__Hello hello = DS__HELLO__INIT;
    hello.protocol = RPC_PROTOCOL;
    hello.program = (char *)(uintptr_t)program;
    hello.version = (char *)(uintptr_t)DS_VERSION;
    const struct passwd *pw = getpwuid(geteuid());
    char number[32];
    snprintf(number, sizeof number, "%u", (unsigned)geteuid());
    hello.user = pw != NULL ? pw->pw_name : number;
    ProtobufCMessage *reply;
    TRY(client_call(c, RPC_HELLO, &hello.base, &reply, timeout_ms, err));
    c->server = (Ds__HelloReply *)reply;
    if (c->server->protocol != RPC_PROTOCOL) {
        return err_set(err, ERR_PROTOCOL,
                       "%s speaks protocol %u, this program %u (install the same "
                       "version on both sides)",
                       c->address, c->server->protocol, RPC_PROTOCOL);
    }
    c->payload_max = FRAME_PAYLOAD_MAX;
    return 0;
}

int client_connect(struct client **client, const char *address, const char *program,
                   int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    struct client *c = mem_alloc(sizeof *c);
    *client = NULL;
    c->fd = -1;
    c->address = mem_strdup(address);
    c->next_id = 1;
    c->payload_max = FRAME_PAYLOAD_MAX_HELLO;
    int rc = sock_connect(&c->fd, address, timeout_ms, err);
    if (rc == 0) {
        int64_t left = timeout_ms < 0 ? -1 : deadline_ms - clock_boot_ms();
        rc = say_hello(c, program, left < 0 && timeout_ms >= 0 ? 0 : left, err);
    }
    if (rc != 0) {
        client_destroy(c);
        return rc;
    }
    *client = c;
    return 0;
}

void client_destroy(struct client *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = c->replies_at; i < c->replies_count; i++) {
        rpc_free(c->replies[i].message);
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    rpc_free((ProtobufCMessage *)c->server);
    buf_fini(&c->out);
    buf_fini(&c->in);
    free(c->replies);
    free(c->given_up);
    free(c->address);
    free(c);
}

const Ds__HelloReply *client_server(const struct client *c)
{
    return c->server;
}
