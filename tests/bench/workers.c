/* workers HOST PORT COUNT SECONDS: COUNT nodes of 8 accelerators on as many connections, which
 * register as dsworkerd does and then say HEARTBEAT as often as the coordinator wants, spread
 * evenly. Prints, as JSON, how long the answers to the heartbeats took. Before that the line
 * `registered` goes out when all have been accepted. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/rpc.h"
#include "tests/bench/latency.h"

#define GPUS     8
#define READ     16384
#define DIALLING 256 /* connections that are not yet registered, at a time */

struct peer {
    int fd;
    uint32_t number;
    bool registered;
    int64_t asked_ns; /* 0: no heartbeat under way */
    int64_t next_ms;
    uint64_t request;
    struct buf in, out;
};

static struct peer *peers;
static uint32_t count, dialled, registered;
static uint64_t term, heartbeat_ms = 5000;
static int poller;
static struct latency latency;
static struct sockaddr_in server;

static void fail(const char *what)
{
    fprintf(stderr, "workers: %s\n", what);
    exit(1);
}

static void send_out(struct peer *p)
{
    while (p->out.len > 0) {
        ssize_t sent = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            fail(strerror(errno));
        }
        buf_consume(&p->out, sent > 0 ? (size_t)sent : 0);
    }
}

static void dial(struct peer *p, uint32_t number)
{
    char program[] = "dsworkerd", version[] = "1", user[] = "root";
    int one = 1;
    p->number = number;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&server, sizeof server) != 0) {
        fail(strerror(errno));
    }
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    epoll_ctl(poller, EPOLL_CTL_ADD, p->fd, &event);
    Ds__Hello hello = DS__HELLO__INIT;
    hello.protocol = RPC_PROTOCOL;
    hello.program = program;
    hello.version = version;
    hello.user = user;
    rpc_pack(&p->out, RPC_HELLO, FRAME_REQUEST, ++p->request, &hello.base);
    send_out(p);
}

static void ask_to_register(struct peer *p)
{
    char name[32], boot[] = "b", version[] = "1", model[] = "NVIDIA H800", ok[] = "ok";
    char uuids[GPUS][32];
    Ds__WorkerGpu gpus[GPUS], *list[GPUS];
    snprintf(name, sizeof name, "gpu%05" PRIu32, p->number);
    for (uint32_t g = 0; g < GPUS; g++) {
        snprintf(uuids[g], sizeof uuids[g], "GPU-%05" PRIu32 "-%" PRIu32, p->number, g);
        gpus[g] = (Ds__WorkerGpu)DS__WORKER_GPU__INIT;
        gpus[g].index = g;
        gpus[g].uuid = uuids[g];
        gpus[g].model = model;
        gpus[g].has_memory_bytes = 1;
        gpus[g].memory_bytes = 85899345920;
        gpus[g].health = ok;
        list[g] = &gpus[g];
    }
    Ds__WorkerRegister m = DS__WORKER_REGISTER__INIT;
    m.name = name;
    m.boot_id = boot;
    m.version = version;
    m.gpus = list;
    m.n_gpus = GPUS;
    m.term_seen = term;
    rpc_pack(&p->out, RPC_WORKER_REGISTER, FRAME_REQUEST, ++p->request, &m.base);
    send_out(p);
}

static void beat(struct peer *p, int64_t now_ms)
{
    Ds__Heartbeat m = DS__HEARTBEAT__INIT;
    m.term = term;
    rpc_pack(&p->out, RPC_HEARTBEAT, FRAME_REQUEST, ++p->request, &m.base);
    p->asked_ns = clock_boot_ns();
    p->next_ms = now_ms + (int64_t)heartbeat_ms;
    send_out(p);
}

static void take(struct peer *p, const struct frame *f)
{
    struct err err = {0};
    ProtobufCMessage *m = NULL;
    if (f->kind == FRAME_ERROR) {
        rpc_unpack_error(f, &err);
        fail(err.text);
    }
    if (f->kind == FRAME_REQUEST) { /* an order: nothing runs here */
        rpc_pack_error(&p->out, f->method, f->request_id, ERR_FAILED, "this is no real node");
        send_out(p);
        return;
    }
    if (f->method == RPC_HEARTBEAT) {
        latency_add(&latency, clock_boot_ns() - p->asked_ns);
        p->asked_ns = 0;
        return;
    }
    if (rpc_unpack(f, &m, &err) != 0) {
        fail(err.text);
    }
    if (f->method == RPC_HELLO) {
        term = ((const Ds__HelloReply *)m)->term;
        ask_to_register(p);
    } else {
        heartbeat_ms = ((const Ds__WorkerRegisterReply *)m)->heartbeat_ms;
        p->registered = true;
        registered++;
        p->next_ms = clock_boot_ms() + (int64_t)(heartbeat_ms * p->number / count);
    }
    rpc_free(m);
}

static void receive(struct peer *p)
{
    ssize_t got = recv(p->fd, buf_reserve(&p->in, READ), READ, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        fail("the coordinator closed a connection");
    }
    p->in.len += got > 0 ? (size_t)got : 0;
    struct frame f;
    size_t used;
    while (frame_decode(p->in.data, p->in.len, FRAME_PAYLOAD_MAX, &f, &used, NULL) == 0) {
        take(p, &f);
        buf_consume(&p->in, used);
    }
    if (p->in.len == 0) {
        buf_fini(&p->in);
    }
}

static void turn(void)
{
    struct epoll_event events[256];
    int n = epoll_wait(poller, events, 256, 1);
    for (int i = 0; i < n; i++) {
        receive(events[i].data.ptr);
    }
    while (dialled < count && dialled - registered < DIALLING) {
        dial(&peers[dialled], dialled + 1);
        dialled++;
    }
}

static void beat_those_due(void)
{
    int64_t now_ms = clock_boot_ms();
    for (uint32_t i = 0; i < count; i++) {
        struct peer *p = &peers[i];
        if (p->registered && p->asked_ns == 0 && now_ms >= p->next_ms) {
            beat(p, now_ms);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
        fprintf(stderr, "use: workers HOST PORT COUNT SECONDS\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    count = (uint32_t)atoi(argv[3]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    peers = mem_alloc_array(count, sizeof *peers);
    while (registered < count) {
        turn();
        beat_those_due();
    }
    puts("registered");
    fflush(stdout);
    latency_fini(&latency);
    int64_t end_ms = clock_boot_ms() + atoi(argv[4]) * 1000;
    while (clock_boot_ms() < end_ms) {
        turn();
        beat_those_due();
    }
    latency_print(&latency);
    return 0;
}
