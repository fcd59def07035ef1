/* orders PORT JOBS SLOTS: a coordinator that does nothing but give orders. Waits for two workers on
 * loopback, then keeps SLOTS no-op jobs running on each until JOBS have ended and been forgotten.
 * Prints {"seconds": S, "reports": N} as JSON. It commits nothing, so what it measures is the
 * workers and shims alone. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/rpc.h"

#define WORKERS 2

struct peer {
    int fd;
    bool registered;
    struct buf in, out;
};

static struct peer peers[WORKERS];
static uint64_t next_job = 1;
static uint64_t jobs, slots, ended, reports, next_request = 1;

static void give(struct peer *p)
{
    char text[] =
        "{\"name\": \"noop\", \"nodes\": 1, \"gpus_per_node\": 1, \"command\": [\"true\"]}";
    char name[] = "noop";
    char place[] = "/";
    char host[] = "127.0.0.1";
    uint32_t gpu = 0;
    if (next_job > jobs) {
        return;
    }
    Ds__AttemptStart m = DS__ATTEMPT_START__INIT;
    m.term = 1;
    m.job = next_job++;
    m.epoch = 1;
    m.name = name;
    m.user = getpwuid(geteuid())->pw_name;
    m.spec = text;
    m.workdir = place;
    m.node_count = 1;
    m.world_size = 1;
    m.n_gpu_index = 1;
    m.gpu_index = &gpu;
    m.master_addr = host;
    m.master_port = 1;
    m.checkpoint_dir = place;
    rpc_pack(&p->out, RPC_ATTEMPT_START, FRAME_REQUEST, next_request++, &m.base);
}

static void take_report(struct peer *p, const Ds__AttemptReport *r)
{
    reports++;
    if (r->phase != 3) {
        return;
    }
    if (r->n_exits != 1 || r->exits[0]->code != 0) {
        fprintf(stderr, "job %lu did not end well: %s\n", r->job, r->error != NULL ? r->error : "");
        exit(1);
    }
    Ds__AttemptForget m = DS__ATTEMPT_FORGET__INIT;
    m.term = 1;
    m.job = r->job;
    m.epoch = 1;
    rpc_pack(&p->out, RPC_ATTEMPT_FORGET, FRAME_REQUEST, next_request++, &m.base);
    give(p);
}

static void answer(struct peer *p, const struct frame *f)
{
    ProtobufCMessage *m = NULL;
    char version[] = "0";
    char cluster[] = "bench";
    Ds__HelloReply hello = DS__HELLO_REPLY__INIT;
    Ds__WorkerRegisterReply registered = DS__WORKER_REGISTER_REPLY__INIT;
    Ds__Empty empty = DS__EMPTY__INIT;
    const ProtobufCMessage *reply = &empty.base;
    if (f->kind == FRAME_ERROR) {
        fprintf(stderr, "a worker refused an order\n");
        exit(1);
    }
    if (f->kind == FRAME_REPLY) {
        ended += f->method == RPC_ATTEMPT_FORGET;
        return;
    }
    if (rpc_unpack(f, &m, NULL) != 0) {
        exit(1);
    }
    hello.protocol = RPC_PROTOCOL;
    hello.version = version;
    hello.cluster = cluster;
    hello.term = 1;
    registered.term = 1;
    registered.heartbeat_ms = 5000;
    registered.lease_ms = 30000;
    reply = f->method == RPC_HELLO             ? &hello.base
            : f->method == RPC_WORKER_REGISTER ? &registered.base
                                               : reply;
    rpc_pack(&p->out, f->method, FRAME_REPLY, f->request_id, reply);
    if (f->method == RPC_WORKER_REGISTER) {
        p->registered = true;
    } else if (f->method == RPC_ATTEMPT_REPORT) {
        take_report(p, (const Ds__AttemptReport *)m);
    }
    rpc_free(m);
}

static void serve(struct peer *p)
{
    ssize_t got = recv(p->fd, buf_reserve(&p->in, 65536), 65536, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        fprintf(stderr, "a worker has gone\n");
        exit(1);
    }
    p->in.len += got > 0 ? (size_t)got : 0;
    struct frame f;
    size_t used;
    while (frame_decode(p->in.data, p->in.len, FRAME_PAYLOAD_MAX, &f, &used, NULL) == 0) {
        answer(p, &f);
        buf_consume(&p->in, used);
    }
}

static void turn(void)
{
    struct pollfd polls[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        struct peer *p = &peers[i];
        ssize_t sent =
            p->out.len > 0 ? send(p->fd, p->out.data, p->out.len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        buf_consume(&p->out, sent > 0 ? (size_t)sent : 0);
        polls[i] = (struct pollfd){p->fd, p->out.len > 0 ? POLLIN | POLLOUT : POLLIN, 0};
    }
    poll(polls, WORKERS, 1000);
    for (int i = 0; i < WORKERS; i++) {
        if (polls[i].revents != 0) {
            serve(&peers[i]);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: orders PORT JOBS SLOTS\n");
        return 2;
    }
    jobs = strtoull(argv[2], NULL, 10);
    slots = strtoull(argv[3], NULL, 10);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(argv[1])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 8) != 0) {
        perror("orders");
        return 1;
    }
    for (int i = 0; i < WORKERS; i++) {
        peers[i].fd = accept(listener, NULL, NULL);
    }
    while (!peers[0].registered || !peers[1].registered) {
        turn();
    }
    int64_t began = clock_boot_ns();
    for (uint64_t i = 0; i < slots; i++) {
        give(&peers[0]);
        give(&peers[1]);
    }
    while (ended < jobs) {
        turn();
    }
    printf("{\"seconds\": %.3f, \"reports\": %lu}\n", (double)(clock_boot_ns() - began) / 1e9,
           reports);
    return 0;
}
