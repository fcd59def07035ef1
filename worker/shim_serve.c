#include "worker/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"

#define READ_BYTES 4096

/* ---- the status as a message */

struct status_message {
    Ds__ShimStatus status;
    Ds__AttemptReport report;
    Ds__RankExit *exits;
    Ds__RankExit **exit_list;
    char (*words)[LAST_WORDS_BYTES + 1];
};

static void fill_exits(const struct shim *s, struct status_message *m)
{
    m->exits = mem_alloc_array(s->rank_count, sizeof *m->exits);
    m->exit_list = mem_alloc_array(s->rank_count, sizeof *m->exit_list);
    m->words = mem_alloc_array(s->rank_count, sizeof *m->words);
    for (uint32_t i = 0; i < s->rank_count; i++) {
        const struct shim_rank *r = &s->ranks[i];
        if (!r->exited) {
            continue;
        }
        size_t n = m->report.n_exits++;
        m->exits[n] = (Ds__RankExit)DS__RANK_EXIT__INIT;
        m->exits[n].rank = r->rank;
        m->exits[n].code = r->code;
        m->exits[n].signal = r->signal;
        m->exits[n].at = r->at_ms;
        if ((r->code != 0 || r->signal != 0) && r->last_words_bytes > 0) {
            for (size_t k = 0; k < r->last_words_bytes; k++) {
                m->words[n][k] = r->last_words[k] != 0 ? r->last_words[k] : '?';
            }
            m->exits[n].last_words = m->words[n];
        }
        m->exit_list[n] = &m->exits[n];
    }
    m->report.exits = m->exit_list;
}

static void message_init(const struct shim *s, struct status_message *m)
{
    *m = (struct status_message){.status = DS__SHIM_STATUS__INIT,
                                 .report = DS__ATTEMPT_REPORT__INIT};
    m->report.job = s->launch->job;
    m->report.epoch = s->launch->epoch;
    m->report.phase = s->phase;
    if (s->error.code == 0) {
        fill_exits(s, m);
    } else {
        m->report.error = (char *)s->error.text;
    }
    m->report.stuck = s->stuck;
    m->report.has_started_at = s->started_at_ms != 0;
    m->report.started_at = s->started_at_ms;
    m->report.has_ended_at = s->ended_at_ms != 0;
    m->report.ended_at = s->ended_at_ms;
    m->status.job = s->launch->job;
    m->status.epoch = s->launch->epoch;
    m->status.boot_id = s->launch->boot_id;
    m->status.pid = getpid();
    m->status.start_ticks = s->start_ticks;
    m->status.report = &m->report;
}

static void message_fini(struct status_message *m)
{
    free(m->exits);
    free(m->exit_list);
    free(m->words);
}

/* ---- clients */

void shim_serve_init(struct shim *s)
{
    for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
        s->clients[i].fd = -1;
    }
    fcntl(SHIM_LISTEN_FD, F_SETFD, FD_CLOEXEC);
    fcntl(SHIM_LISTEN_FD, F_SETFL, O_NONBLOCK);
    s->orphan_since_ms = clock_boot_ms();
}

bool shim_has_client(const struct shim *s)
{
    for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
        if (s->clients[i].fd >= 0) {
            return true;
        }
    }
    return false;
}

static void drop_client(struct shim *s, struct shim_client *c)
{
    close(c->fd);
    c->fd = -1;
    buf_fini(&c->in);
    buf_fini(&c->out);
    if (!shim_has_client(s)) {
        s->orphan_since_ms = clock_boot_ms();
    }
}

static void send_some(struct shim *s, struct shim_client *c)
{
    while (c->out.len > 0) {
        ssize_t sent = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
        if (sent >= 0) {
            buf_consume(&c->out, (size_t)sent);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            drop_client(s, c);
            return;
        }
    }
}

static void push_status(struct shim *s, struct shim_client *c)
{
    struct status_message m;
    message_init(s, &m);
    rpc_pack(&c->out, RPC_SHIM_STATUS, FRAME_ONEWAY, 0, &m.status.base);
    message_fini(&m);
    send_some(s, c);
}

void shim_serve_accept(struct shim *s)
{
    int fd = accept4(SHIM_LISTEN_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
        if (s->clients[i].fd < 0) {
            s->clients[i] = (struct shim_client){.fd = fd};
            push_status(s, &s->clients[i]);
            return;
        }
    }
    close(fd);
}

static int answer(struct shim *s, struct shim_client *c, const struct frame *f)
{
    ProtobufCMessage *request = NULL;
    struct err err;
    if (f->kind != FRAME_REQUEST || rpc_unpack(f, &request, &err) != 0) {
        return -1;
    }
    Ds__Empty empty = DS__EMPTY__INIT;
    struct status_message m;
    switch (f->method) {
    case RPC_SHIM_STATUS:
        message_init(s, &m);
        rpc_pack(&c->out, f->method, FRAME_REPLY, f->request_id, &m.status.base);
        message_fini(&m);
        break;
    case RPC_SHIM_STOP:
        shim_stop(s, ((const Ds__ShimStop *)request)->grace_ms,
                  ((const Ds__ShimStop *)request)->reason);
        rpc_pack(&c->out, f->method, FRAME_REPLY, f->request_id, &empty.base);
        break;
    default:
        rpc_pack_error(&c->out, f->method, f->request_id, ERR_PROTOCOL, "not for a shim");
    }
    rpc_free(request);
    return 0;
}

static void receive(struct shim *s, struct shim_client *c)
{
    ssize_t got = recv(c->fd, buf_reserve(&c->in, READ_BYTES), READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        drop_client(s, c);
        return;
    }
    c->in.len += (size_t)got;
    for (;;) {
        struct frame f;
        size_t used;
        struct err err;
        int rc = frame_decode(c->in.data, c->in.len, FRAME_PAYLOAD_MAX_HELLO, &f, &used, &err);
        if (rc == ERR_AGAIN) {
            break;
        }
        if (rc != 0 || answer(s, c, &f) != 0) {
            drop_client(s, c);
            return;
        }
        buf_consume(&c->in, used);
    }
    send_some(s, c);
}

void shim_serve_client(struct shim *s, struct shim_client *c, short events)
{
    if (c->fd >= 0 && (events & POLLOUT) != 0) {
        send_some(s, c);
    }
    if (c->fd >= 0 && (events & (POLLIN | POLLHUP | POLLERR)) != 0) {
        receive(s, c);
    }
}

/* ---- telling */

static void write_status(struct shim *s)
{
    struct status_message m;
    struct buf frame = {0};
    struct err err;
    message_init(s, &m);
    rpc_pack(&frame, RPC_SHIM_STATUS, FRAME_ONEWAY, 0, &m.status.base);
    message_fini(&m);
    /* A disk that is full now is no reason to hold back what is known: the worker is told, and it
     * tells the coordinator. */
    if (file_write_durable(SHIM_STATUS_FILE, frame.data, frame.len, 0600, &err) != 0) {
        log_error("exits are known but could not be made durable: %s", err.text);
    }
    buf_fini(&frame);
}

void shim_tell(struct shim *s)
{
    if (s->exits_changed) {
        write_status(s);
    }
    s->exits_changed = false;
    s->changed = false;
    for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
        if (s->clients[i].fd >= 0) {
            push_status(s, &s->clients[i]);
        }
    }
}

void shim_serve_finish(struct shim *s, int64_t wait_ms)
{
    int64_t deadline = clock_boot_ms() + wait_ms;
    for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
        struct shim_client *c = &s->clients[i];
        while (c->fd >= 0 && c->out.len > 0 && clock_boot_ms() < deadline) {
            struct pollfd p = {.fd = c->fd, .events = POLLOUT};
            poll(&p, 1, (int)(deadline - clock_boot_ms()));
            send_some(s, c);
        }
        if (c->fd >= 0) {
            drop_client(s, c);
        }
    }
}
