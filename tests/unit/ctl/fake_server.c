#include "tests/unit/ctl/fake_server.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/mem.h"

struct fake_server {
    fake_handler handler;
    void *arg;
    char folder[64];
    char path[96];
    int listener;
    atomic_bool over;
    pthread_t thread;
};

struct fake_call {
    uint16_t method;
    uint64_t id;
    struct buf *out;
    bool drop;
};

void fake_reply(struct fake_call *call, const void *message)
{
    int rc = rpc_pack(call->out, call->method, FRAME_REPLY, call->id, message);
    assert(rc == 0);
}

void fake_refuse(struct fake_call *call, int code, const char *text)
{
    rpc_pack_error(call->out, call->method, call->id, code, text);
}

void fake_drop(struct fake_call *call)
{
    call->drop = true;
}

static void hello(struct fake_call *call)
{
    Ds__HelloReply reply = DS__HELLO_REPLY__INIT;
    reply.protocol = RPC_PROTOCOL;
    reply.version = (char[]){"test"};
    reply.term = 1;
    reply.cluster = (char[]){"test"};
    fake_reply(call, &reply);
}

/* Answers what is in `in`. False when the connection is to be closed. */
static bool answer(struct fake_server *s, struct buf *in, struct buf *out)
{
    struct frame f;
    size_t used = 0;
    while (frame_decode(in->data, in->len, FRAME_PAYLOAD_MAX, &f, &used, NULL) == 0) {
        struct fake_call call = {.method = f.method, .id = f.request_id, .out = out};
        ProtobufCMessage *request = NULL;
        int rc = rpc_unpack(&f, &request, NULL);
        assert(rc == 0);
        if (f.method == RPC_HELLO) {
            hello(&call);
        } else {
            s->handler(&call, f.method, request, s->arg);
        }
        rpc_free(request);
        buf_consume(in, used);
        if (call.drop) {
            return false;
        }
    }
    return true;
}

static void serve(struct fake_server *s, int fd)
{
    struct buf in = {0};
    struct buf out = {0};
    bool open = true;
    while (open && !atomic_load(&s->over)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) {
            continue;
        }
        ssize_t got = recv(fd, buf_reserve(&in, 65536), 65536, 0);
        if (got <= 0) {
            break;
        }
        in.len += (size_t)got;
        open = answer(s, &in, &out);
        for (size_t sent = 0; sent < out.len;) {
            ssize_t n = send(fd, out.data + sent, out.len - sent, MSG_NOSIGNAL);
            if (n <= 0) {
                break;
            }
            sent += (size_t)n;
        }
        buf_reset(&out);
    }
    buf_fini(&in);
    buf_fini(&out);
    close(fd);
}

/* One connection at a time is all that dsctl makes. */
static void *run(void *arg)
{
    struct fake_server *s = arg;
    while (!atomic_load(&s->over)) {
        struct pollfd p = {.fd = s->listener, .events = POLLIN};
        if (poll(&p, 1, 20) > 0) {
            int fd = accept(s->listener, NULL, NULL);
            if (fd >= 0) {
                serve(s, fd);
            }
        }
    }
    return NULL;
}

struct fake_server *fake_server_start(fake_handler handler, void *arg)
{
    struct fake_server *s = mem_alloc(sizeof *s);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    s->handler = handler;
    s->arg = arg;
    strcpy(s->folder, "/tmp/dsctl-test-XXXXXX");
    char *made = mkdtemp(s->folder);
    assert(made != NULL);
    snprintf(s->path, sizeof s->path, "%s/dsd.sock", s->folder);
    strcpy(addr.sun_path, s->path);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = bind(s->listener, (const struct sockaddr *)&addr, sizeof addr);
    assert(rc == 0);
    rc = listen(s->listener, 8);
    assert(rc == 0);
    rc = pthread_create(&s->thread, NULL, run, s);
    assert(rc == 0);
    return s;
}

void fake_server_stop(struct fake_server *s)
{
    atomic_store(&s->over, true);
    pthread_join(s->thread, NULL);
    close(s->listener);
    unlink(s->path);
    rmdir(s->folder);
    free(s);
}

const char *fake_server_address(const struct fake_server *s)
{
    return s->path;
}
