#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/client.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

/* Echoes: NODE_SHOW "x" answers a Node named "x"; "fail" an error, "late" after 300 ms, "never" not
 * at all, "close" closes, "junk" sends noise, "unasked" answers what nobody asked. */
struct server {
    char folder[64], path[96];
    int listen_fd;
    uint32_t protocol;
    bool mute; /* says nothing at all */
    atomic_bool quit;
    pthread_t thread;
    uint64_t late_id;
    int64_t late_at_ms;
};

static void pack_node(struct buf *out, uint64_t id, const char *name)
{
    Ds__Node node = DS__NODE__INIT;
    node.name = TEXT(name);
    node.state = TEXT("UP");
    rpc_pack(out, RPC_NODE_SHOW, FRAME_REPLY, id, &node.base);
}

/* false: hang up. */
static bool answer(struct server *s, const struct frame *f, struct buf *out)
{
    if (s->mute) {
        return true;
    }
    if (f->method == RPC_HELLO) {
        Ds__HelloReply reply = DS__HELLO_REPLY__INIT;
        reply.protocol = s->protocol;
        reply.version = TEXT("9.9");
        reply.cluster = TEXT("test");
        reply.term = 4;
        rpc_pack(out, RPC_HELLO, FRAME_REPLY, f->request_id, &reply.base);
        return true;
    }
    ProtobufCMessage *message;
    if (f->method != RPC_NODE_SHOW || rpc_unpack(f, &message, NULL) != 0) {
        return false;
    }
    char name[64];
    snprintf(name, sizeof name, "%s", ((const Ds__NodeName *)message)->name);
    rpc_free(message);
    if (strcmp(name, "fail") == 0) {
        rpc_pack_error(out, f->method, f->request_id, ERR_NOT_FOUND, "no node fail");
    } else if (strcmp(name, "late") == 0) {
        s->late_id = f->request_id;
        s->late_at_ms = clock_boot_ms() + 300;
    } else if (strcmp(name, "junk") == 0) {
        buf_append_str(out, "HTTP/1.1 200 OK\r\n\r\n");
    } else if (strcmp(name, "unasked") == 0) {
        pack_node(out, f->request_id + 1000, name);
    } else if (strcmp(name, "close") == 0) {
        return false;
    } else if (strcmp(name, "never") != 0) {
        pack_node(out, f->request_id, name);
    }
    return true;
}

static void serve_connection(struct server *s, int fd)
{
    struct buf in = {0};
    struct buf out = {0};
    bool open = true;
    while (open && !s->quit) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (out.len > 0 ? POLLOUT : 0))};
        poll(&p, 1, 5);
        if (s->late_id != 0 && clock_boot_ms() >= s->late_at_ms) {
            pack_node(&out, s->late_id, "late");
            s->late_id = 0;
        }
        if ((p.revents & POLLIN) != 0) {
            uint8_t *room = buf_reserve(&in, 65536);
            ssize_t got = recv(fd, room, 65536, MSG_DONTWAIT);
            open = got > 0;
            in.len += got > 0 ? (size_t)got : 0;
        }
        struct frame f;
        size_t used;
        size_t at = 0;
        while (open &&
               frame_decode(in.data + at, in.len - at, FRAME_PAYLOAD_MAX, &f, &used, NULL) == 0) {
            open = answer(s, &f, &out);
            at += used;
        }
        buf_consume(&in, at);
        if (out.len > 0) {
            ssize_t sent = send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
            buf_consume(&out, sent > 0 ? (size_t)sent : 0);
        }
        open = open && (p.revents & (POLLHUP | POLLERR)) == 0;
    }
    buf_fini(&in);
    buf_fini(&out);
    close(fd);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    while (!s->quit) {
        struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};
        if (poll(&p, 1, 5) > 0) {
            serve_connection(s, accept(s->listen_fd, NULL, NULL));
        }
    }
    return NULL;
}

static void server_start(struct server *s)
{
    *s = (struct server){.protocol = RPC_PROTOCOL};
    strcpy(s->folder, "/tmp/ds-client-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/sock", s->folder);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, s->path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listen_fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(s->listen_fd, 8), 0);
    pthread_create(&s->thread, NULL, serve, s);
}

static void server_stop(struct server *s)
{
    s->quit = true;
    pthread_join(s->thread, NULL);
    close(s->listen_fd);
    unlink(s->path);
    rmdir(s->folder);
}

static int show(struct client *c, const char *name, int64_t timeout_ms, struct err *err)
{
    Ds__NodeName request = DS__NODE_NAME__INIT;
    request.name = TEXT(name);
    ProtobufCMessage *reply;
    int rc = client_call(c, RPC_NODE_SHOW, &request.base, &reply, timeout_ms, err);
    assert_true((rc == 0) == (reply != NULL));
    if (rc == 0) {
        assert_string_equal(((const Ds__Node *)reply)->name, name);
    }
    rpc_free(reply);
    return rc;
}

/* A call brings the reply or the server's error; after a time-out the late reply is not taken for
 * another one's. */
static void test_call(void **state)
{
    (void)state;
    struct server s;
    struct client *c;
    struct err err;
    server_start(&s);
    assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), 0);
    assert_int_equal(client_server(c)->term, 4);
    assert_string_equal(client_server(c)->cluster, "test");
    assert_int_equal(show(c, "n1", 5000, &err), 0);
    assert_int_equal(show(c, "fail", 5000, &err), ERR_NOT_FOUND);
    assert_string_equal(err.text, "no node fail");
    assert_int_equal(show(c, "late", 50, &err), ERR_TIMEOUT);
    assert_int_equal(show(c, "n2", 5000, &err), 0);
    clock_sleep_ms(400);
    assert_int_equal(show(c, "n3", 5000, &err), 0);
    assert_int_equal(show(c, "n4", -1, &err), 0);
    client_destroy(c);
    client_destroy(NULL);
    server_stop(&s);
}

/* A connection that closes, talks nonsense or answers what was not asked gives a clear error, and
 * so does every later call. */
static void test_broken(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int code;
    } cases[] = {{"close", ERR_UNREACHABLE}, {"junk", ERR_PROTOCOL}, {"unasked", ERR_PROTOCOL}};
    struct server s;
    struct err err;
    server_start(&s);
    for (size_t i = 0; i < 3; i++) {
        struct client *c;
        assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), 0);
        assert_int_equal(show(c, cases[i].name, 5000, &err), cases[i].code);
        assert_non_null(strstr(err.text, s.path));
        assert_int_equal(show(c, "n1", 5000, &err), ERR_UNREACHABLE);
        client_destroy(c);
    }
    server_stop(&s);
}

/* Nobody there, nobody answers, another version: each is told apart. */
static void test_connect(void **state)
{
    (void)state;
    struct server s;
    struct client *c;
    struct err err;
    server_start(&s);
    s.protocol = 2;
    assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), ERR_PROTOCOL);
    assert_null(c);
    s.mute = true;
    int64_t start = clock_boot_ms();
    assert_int_equal(client_connect(&c, s.path, "test", 100, &err), ERR_TIMEOUT);
    assert_in_range(clock_boot_ms() - start, 90, 5000);
    server_stop(&s);
    assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), ERR_UNREACHABLE);
    assert_non_null(strstr(err.text, "no such socket"));
    assert_int_equal(client_connect(&c, "127.0.0.1:1", "test", 5000, &err), ERR_UNREACHABLE);
    static const char *const bad[] = {"nonsense", "host:",   ":7000", "host:0", "host:65536",
                                      "host:7x",  "host:-1", "[::1]", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(client_connect(&c, bad[i], "test", 5000, &err), ERR_USAGE);
    }
}

/* Thousands of pipelined requests, more than any socket buffer holds, to a server that answers
 * while it reads: neither blocks for ever, and each reply comes once. */
static void test_pipeline(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    static uint8_t seen[COUNT + 2];
    struct server s;
    struct client *c;
    struct err err;
    server_start(&s);
    assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), 0);
    Ds__NodeName request = DS__NODE_NAME__INIT;
    uint64_t first = 0;
    for (int i = 0; i < COUNT; i++) {
        char name[32];
        uint64_t id;
        snprintf(name, sizeof name, i % 7 == 0 ? "fail" : "n%d", i);
        request.name = name;
        assert_int_equal(client_send(c, RPC_NODE_SHOW, &request.base, &id, &err), 0);
        first = i == 0 ? id : first;
        assert_int_equal(id, first + (uint64_t)i);
    }
    for (int i = 0; i < COUNT; i++) {
        uint64_t id;
        int outcome;
        ProtobufCMessage *reply;
        assert_int_equal(client_receive(c, &id, &reply, &outcome, 30000, &err), 0);
        assert_int_equal(outcome, (id - first) % 7 == 0 ? ERR_NOT_FOUND : 0);
        assert_int_equal(seen[id - first]++, 0);
        rpc_free(reply);
    }
    uint64_t id;
    int outcome;
    ProtobufCMessage *reply;
    assert_int_equal(client_receive(c, &id, &reply, &outcome, 10, &err), ERR_TIMEOUT);
    client_destroy(c);
    server_stop(&s);
}

/* Calls and pipelined requests mix; a request over 4 MiB is refused before it is sent. */
static void test_mixed(void **state)
{
    (void)state;
    struct server s;
    struct client *c;
    struct err err;
    server_start(&s);
    assert_int_equal(client_connect(&c, s.path, "test", 5000, &err), 0);
    Ds__NodeName request = DS__NODE_NAME__INIT;
    request.name = TEXT("first");
    uint64_t id;
    assert_int_equal(client_send(c, RPC_NODE_SHOW, &request.base, &id, &err), 0);
    assert_int_equal(show(c, "second", 5000, &err), 0);
    char *large = mem_alloc(FRAME_PAYLOAD_MAX + 1);
    memset(large, 'x', FRAME_PAYLOAD_MAX);
    assert_int_equal(show(c, large, 5000, &err), ERR_TOO_LARGE);
    free(large);
    uint64_t got;
    int outcome;
    ProtobufCMessage *reply;
    assert_int_equal(client_receive(c, &got, &reply, &outcome, 5000, &err), 0);
    assert_int_equal(got, id);
    assert_string_equal(((const Ds__Node *)reply)->name, "first");
    rpc_free(reply);
    client_destroy(c);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_connect), cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
