/* The whole coordinator in a thread of this process, on real sockets, with people and workers that
 * speak frames by hand. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/dsd.h"
#include "daemon/rpc.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/sock.h"
#include "proto/client.h"
#include "proto/rpc.h"

#define WAIT_MS 20000

static struct dsd dsd;
static struct config config;
static pthread_t thread;
static char dir[64], address[100];

/* ------------------------------------------------------------------ the coordinator */

static void *run(void *unused)
{
    (void)unused;
    dsd_run(&dsd);
    return NULL;
}

static void start(void)
{
    struct err err = {0};
    if (dsd_init(&dsd, &config, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
}

static void stop(void)
{
    kill(getpid(), SIGTERM); /* as an operator stops it */
    pthread_join(thread, NULL);
    assert_true(dsd_fini(&dsd));
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    log_init("test", LOG_ERROR);
    snprintf(dir, sizeof dir, "/tmp/ds-serve-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(address, sizeof address, "%s/dsd.sock", dir);
    static const char yaml[] = "state_dir: state\nsocket: dsd.sock\nlisten: off\nlog_level: error\n"
                               "heartbeat: 1s\nlease: 5s\nrecovering: 1s\n";
    struct config_flags flags = {0};
    struct err err = {0};
    assert_int_equal(config_parse(&config, yaml, sizeof yaml - 1, "dsd.yaml", dir, &flags, &err),
                     0);
    free(config.prices);
    config.prices = NULL;
    start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop();
    config_fini(&config);
    return file_remove_tree(dir, NULL);
}

/* ------------------------------------------------------------------ a peer that speaks frames */

struct wire {
    int fd;
    uint64_t id;
    struct buf in;
    size_t used; /* of in: the frame last received */
};

static void wire_open(struct wire *w)
{
    struct err err = {0};
    *w = (struct wire){0};
    if (sock_connect(&w->fd, address, WAIT_MS, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

static void wire_close(struct wire *w)
{
    close(w->fd);
    buf_fini(&w->in);
}

static void wire_bytes(struct wire *w, const struct buf *out)
{
    size_t at = 0;
    while (at < out->len) {
        ssize_t put = send(w->fd, out->data + at, out->len - at, MSG_NOSIGNAL);
        if (put < 0) {
            assert_int_equal(errno, EAGAIN);
            sock_wait(w->fd, POLLOUT, clock_boot_ms() + WAIT_MS);
        } else {
            at += (size_t)put;
        }
    }
}

static uint64_t wire_send(struct wire *w, uint16_t method, enum frame_kind kind, uint64_t id,
                          const ProtobufCMessage *m)
{
    struct buf out = {0};
    assert_int_equal(rpc_pack(&out, method, kind, id, m), 0);
    wire_bytes(w, &out);
    buf_fini(&out);
    return id;
}

static uint64_t wire_ask(struct wire *w, uint16_t method, const ProtobufCMessage *m)
{
    return wire_send(w, method, FRAME_REQUEST, ++w->id, m);
}

/* The next frame; false when the peer closed. */
static bool wire_next(struct wire *w, struct frame *f)
{
    struct err err = {0};
    buf_consume(&w->in, w->used);
    w->used = 0;
    for (;;) {
        int rc = frame_decode(w->in.data, w->in.len, FRAME_PAYLOAD_MAX, f, &w->used, &err);
        if (rc == 0) {
            return true;
        }
        assert_int_equal(rc, ERR_AGAIN);
        if (sock_wait(w->fd, POLLIN, clock_boot_ms() + WAIT_MS) == 0) {
            fail_msg("no frame in %d ms", WAIT_MS);
        }
        ssize_t got = read(w->fd, buf_reserve(&w->in, 65536), 65536);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) {
            return false;
        }
        w->in.len += got > 0 ? (size_t)got : 0;
    }
}

/* The next frame is an answer to that request: 0 and the message, or the error's code. */
static int wire_answer(struct wire *w, uint64_t id, ProtobufCMessage **m)
{
    struct frame f;
    struct err err = {0};
    assert_true(wire_next(w, &f));
    assert_int_equal(f.request_id, id);
    if (f.kind == FRAME_ERROR) {
        return rpc_unpack_error(&f, &err);
    }
    assert_int_equal(f.kind, FRAME_REPLY);
    ProtobufCMessage *got = NULL;
    assert_int_equal(rpc_unpack(&f, &got, &err), 0);
    if (m != NULL) {
        *m = got;
    } else {
        rpc_free(got);
    }
    return 0;
}

static int wire_call(struct wire *w, uint16_t method, const ProtobufCMessage *m,
                     ProtobufCMessage **reply)
{
    return wire_answer(w, wire_ask(w, method, m), reply);
}

static void wire_hello(struct wire *w)
{
    Ds__Hello m = DS__HELLO__INIT;
    m.protocol = RPC_PROTOCOL;
    m.program = (char *)"test";
    m.version = (char *)"1";
    wire_open(w);
    assert_int_equal(wire_call(w, RPC_HELLO, &m.base, NULL), 0);
}

static uint64_t submit(struct wire *w, const char *yaml)
{
    Ds__JobSubmit m = DS__JOB_SUBMIT__INIT;
    ProtobufCMessage *reply;
    m.spec = (char *)yaml;
    m.spec_name = (char *)"job.yaml";
    m.spec_dir = (char *)"/";
    assert_int_equal(wire_call(w, RPC_JOB_SUBMIT, &m.base, &reply), 0);
    uint64_t id = ((Ds__JobSubmitReply *)reply)->id;
    rpc_free(reply);
    return id;
}

static const char one[] = "name: one\ngpus_per_node: 1\ncommand: [\"true\"]\n";

/* ------------------------------------------------------------------ a worker */

static void worker_join(struct wire *w, const char *name)
{
    Ds__WorkerGpu gpu = DS__WORKER_GPU__INIT, *gpus[] = {&gpu};
    Ds__WorkerRegister m = DS__WORKER_REGISTER__INIT;
    ProtobufCMessage *reply;
    wire_hello(w);
    gpu.uuid = gpu.model = (char *)"cpu";
    m.name = (char *)name;
    m.boot_id = m.version = (char *)"b";
    m.gpus = gpus;
    m.n_gpus = 1;
    assert_int_equal(wire_call(w, RPC_WORKER_REGISTER, &m.base, &reply), 0);
    assert_true(((Ds__WorkerRegisterReply *)reply)->term >= 1);
    assert_int_equal(((Ds__WorkerRegisterReply *)reply)->lease_ms, 5000);
    rpc_free(reply);
}

/* The next frame is this order; it is answered with Empty. */
static void worker_obey(struct wire *w, uint16_t method)
{
    struct frame f;
    assert_true(wire_next(w, &f));
    assert_int_equal(f.kind, FRAME_REQUEST);
    assert_int_equal(f.method, method);
    wire_send(w, method, FRAME_REPLY, f.request_id, &(Ds__Empty)DS__EMPTY__INIT.base);
}

static void worker_report(struct wire *w, uint64_t job, uint32_t phase)
{
    Ds__AttemptReport m = DS__ATTEMPT_REPORT__INIT;
    Ds__RankExit x = DS__RANK_EXIT__INIT, *exits[] = {&x};
    m.job = job;
    m.epoch = 1;
    m.phase = phase;
    if (phase == 3) {
        m.exits = exits;
        m.n_exits = 1;
    }
    assert_int_equal(wire_call(w, RPC_ATTEMPT_REPORT, &m.base, NULL), 0);
}

static int store_set(struct wire *w, uint64_t job, const char *key, const char *value)
{
    Ds__StoreSet m = DS__STORE_SET__INIT;
    m.job = job;
    m.epoch = 1;
    m.key = (char *)key;
    m.value.data = (uint8_t *)value;
    m.value.len = strlen(value);
    return wire_call(w, RPC_STORE_SET, &m.base, NULL);
}

static uint64_t ask_store_get(struct wire *w, uint64_t job, const char *key, uint64_t wait_ms)
{
    Ds__StoreGet m = DS__STORE_GET__INIT;
    m.job = job;
    m.epoch = 1;
    m.key = (char *)key;
    m.wait_ms = wait_ms;
    return wire_ask(w, RPC_STORE_GET, &m.base);
}

/* ------------------------------------------------------------------ tests */

/* Each method of rpc.def is served, or is one that dsd sends itself or never sees. */
static void test_every_method(void **state)
{
    (void)state;
    for (unsigned method = 0; method < 65536; method++) {
        const struct rpc_info *info = rpc_find((uint16_t)method);
        bool not_ours = method == RPC_HELLO || method >= 120;
        assert_int_equal(rpc_handler_of((uint16_t)method) != NULL, info != NULL && !not_ours);
    }
}

/* A peer of another protocol, and one that does not say HELLO, are told why and closed. */
static void test_strangers(void **state)
{
    (void)state;
    struct wire w;
    struct frame f;
    Ds__Hello hello = DS__HELLO__INIT;
    hello.protocol = RPC_PROTOCOL + 1;
    hello.program = hello.version = (char *)"test";
    wire_open(&w);
    assert_int_equal(wire_call(&w, RPC_HELLO, &hello.base, NULL), ERR_PROTOCOL);
    assert_false(wire_next(&w, &f));
    wire_close(&w);
    wire_open(&w);
    assert_int_equal(wire_call(&w, RPC_CLUSTER_STATUS, &(Ds__Empty)DS__EMPTY__INIT.base, NULL),
                     ERR_PROTOCOL);
    assert_false(wire_next(&w, &f));
    wire_close(&w);
}

/* What dsd does not understand in a sound frame is answered, and the next request is served. */
static void test_nonsense(void **state)
{
    (void)state;
    struct wire w;
    wire_hello(&w);
    struct buf out = {0};
    frame_encode(&(struct frame){.method = 250, .kind = FRAME_REQUEST, .request_id = ++w.id}, &out);
    wire_bytes(&w, &out);
    assert_int_equal(wire_answer(&w, w.id, NULL), ERR_PROTOCOL);
    buf_fini(&out);
    Ds__JobId big = DS__JOB_ID__INIT;
    big.id = UINT64_MAX;
    assert_int_equal(wire_call(&w, RPC_JOB_SHOW, &big.base, NULL), ERR_INVALID);
    Ds__AttemptReport report = DS__ATTEMPT_REPORT__INIT;
    assert_int_equal(wire_call(&w, RPC_ATTEMPT_REPORT, &report.base, NULL), ERR_DENIED);
    assert_int_equal(wire_call(&w, RPC_CLUSTER_STATUS, &(Ds__Empty)DS__EMPTY__INIT.base, NULL), 0);
    wire_close(&w);
}

/* Ten thousand submits sent before any answer is awaited are all answered, with ids 1 to 10,000,
 * and are all there after a restart. */
static void test_pipelined_submits(void **state)
{
    (void)state;
    enum { COUNT = 10000 };
    static bool seen[COUNT + 1];
    struct client *client = NULL;
    struct err err = {0};
    assert_int_equal(client_connect(&client, address, "test", WAIT_MS, &err), 0);
    Ds__JobSubmit m = DS__JOB_SUBMIT__INIT;
    m.spec = (char *)one;
    m.spec_name = (char *)"job.yaml";
    m.spec_dir = (char *)"/";
    for (int i = 0; i < COUNT; i++) {
        uint64_t id;
        assert_int_equal(client_send(client, RPC_JOB_SUBMIT, &m.base, &id, &err), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        uint64_t id;
        ProtobufCMessage *reply;
        int outcome;
        assert_int_equal(client_receive(client, &id, &reply, &outcome, WAIT_MS, &err), 0);
        assert_int_equal(outcome, 0);
        uint64_t job = ((Ds__JobSubmitReply *)reply)->id;
        assert_in_range(job, 1, COUNT);
        assert_false(seen[job]);
        seen[job] = true;
        rpc_free(reply);
    }
    client_destroy(client);
    stop();
    start();
    struct wire w;
    wire_hello(&w);
    ProtobufCMessage *reply;
    assert_int_equal(wire_call(&w, RPC_CLUSTER_STATUS, &(Ds__Empty)DS__EMPTY__INIT.base, &reply),
                     0);
    const Ds__ClusterStatus *s = (const Ds__ClusterStatus *)reply;
    assert_int_equal(s->term, 2);
    assert_int_equal(s->n_jobs, 1);
    assert_int_equal(s->jobs[0]->count, COUNT);
    rpc_free(reply);
    wire_close(&w);
}

/* One request about several jobs has one outcome for each, in order; of none, or too many, it is
 * refused. */
static void test_many(void **state)
{
    (void)state;
    struct wire w;
    wire_hello(&w);
    uint64_t first = submit(&w, one), second = submit(&w, one);
    uint64_t ids[] = {second, 999, first, first};
    Ds__JobCancel m = DS__JOB_CANCEL__INIT;
    m.id = ids;
    m.n_id = 4;
    ProtobufCMessage *reply;
    assert_int_equal(wire_call(&w, RPC_JOB_CANCEL, &m.base, &reply), 0);
    const Ds__OutcomeList *list = (const Ds__OutcomeList *)reply;
    assert_int_equal(list->n_items, 4);
    const int codes[] = {0, ERR_NOT_FOUND, 0, ERR_CONFLICT};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(list->items[i]->id, ids[i]);
        assert_int_equal(list->items[i]->code, codes[i]);
    }
    rpc_free(reply);
    m.n_id = 0;
    assert_int_equal(wire_call(&w, RPC_JOB_CANCEL, &m.base, NULL), ERR_INVALID);
    wire_close(&w);
}

/* JOB_WAIT answers at the job's end, or with the job as it is when the wait is over; EVENT_LIST
 * when there is something newer. */
static void test_waits(void **state)
{
    (void)state;
    struct wire people, other;
    wire_hello(&people);
    wire_hello(&other);
    uint64_t job = submit(&people, one);

    Ds__JobWait wait = DS__JOB_WAIT__INIT;
    ProtobufCMessage *reply;
    wait.id = 999;
    assert_int_equal(wire_call(&people, RPC_JOB_WAIT, &wait.base, NULL), ERR_NOT_FOUND);
    wait.id = job;
    wait.has_wait_ms = 1;
    wait.wait_ms = 50;
    assert_int_equal(wire_call(&people, RPC_JOB_WAIT, &wait.base, &reply), 0);
    assert_string_equal(((Ds__Job *)reply)->state, "PENDING");
    rpc_free(reply);

    wait.wait_ms = 3600000;
    uint64_t waiting = wire_ask(&people, RPC_JOB_WAIT, &wait.base);
    Ds__EventListRequest events = DS__EVENT_LIST_REQUEST__INIT;
    assert_int_equal(wire_call(&other, RPC_EVENT_LIST, &events.base, &reply), 0);
    const Ds__EventList *list = (const Ds__EventList *)reply;
    events.has_since = events.has_wait_ms = 1;
    events.since = list->items[list->n_items - 1]->seq;
    events.wait_ms = 3600000;
    rpc_free(reply);
    uint64_t watching = wire_ask(&other, RPC_EVENT_LIST, &events.base);

    struct wire boss;
    wire_hello(&boss);
    Ds__JobCancel cancel = DS__JOB_CANCEL__INIT;
    cancel.id = &job;
    cancel.n_id = 1;
    assert_int_equal(wire_call(&boss, RPC_JOB_CANCEL, &cancel.base, NULL), 0);
    assert_int_equal(wire_answer(&people, waiting, &reply), 0);
    assert_string_equal(((Ds__Job *)reply)->state, "CANCELLED");
    rpc_free(reply);
    assert_int_equal(wire_answer(&other, watching, &reply), 0);
    list = (const Ds__EventList *)reply;
    assert_true(list->n_items > 0);
    assert_true(list->items[0]->seq == events.since + 1);
    rpc_free(reply);
    wire_close(&boss);
    wire_close(&other);
    wire_close(&people);
}

/* A peer that goes away while it waits leaves nothing behind, and the event it waited for harms
 * nobody. */
static void test_gone_while_waiting(void **state)
{
    (void)state;
    struct wire gone, w;
    wire_hello(&w);
    uint64_t job = submit(&w, one);
    Ds__JobWait wait = DS__JOB_WAIT__INIT;
    wait.id = job;
    for (int i = 0; i < 20; i++) {
        wire_hello(&gone);
        wire_ask(&gone, RPC_JOB_WAIT, &wait.base);
        wire_close(&gone);
    }
    Ds__JobCancel cancel = DS__JOB_CANCEL__INIT;
    cancel.id = &job;
    cancel.n_id = 1;
    assert_int_equal(wire_call(&w, RPC_JOB_CANCEL, &cancel.base, NULL), 0);
    assert_int_equal(wire_call(&w, RPC_JOB_WAIT, &wait.base, NULL), 0);
    wire_close(&w);
}

/* A worker gets its orders, reports, and the job ends; its ranks meet through the store until the
 * epoch is over. */
static void test_worker(void **state)
{
    (void)state;
    struct wire people, worker;
    worker_join(&worker, "n1");
    wire_hello(&people);
    uint64_t job = submit(&people, one);

    struct frame f;
    ProtobufCMessage *order;
    struct err err = {0};
    assert_true(wire_next(&worker, &f));
    assert_int_equal(f.method, RPC_ATTEMPT_START);
    assert_int_equal(rpc_unpack(&f, &order, &err), 0);
    const Ds__AttemptStart *m = (const Ds__AttemptStart *)order;
    assert_int_equal(m->job, job);
    assert_int_equal(m->epoch, 1);
    assert_int_equal(m->world_size, 1);
    assert_int_equal(m->n_gpu_index, 1);
    assert_non_null(strstr(m->spec, "\"one\""));
    assert_string_equal(m->master_addr, "127.0.0.1");
    wire_send(&worker, RPC_ATTEMPT_START, FRAME_REPLY, f.request_id,
              &(Ds__Empty)DS__EMPTY__INIT.base);
    rpc_free(order);
    worker_report(&worker, job, 2);

    Ds__Heartbeat beat = DS__HEARTBEAT__INIT;
    beat.term = 1;
    assert_int_equal(wire_call(&worker, RPC_HEARTBEAT, &beat.base, NULL), 0);
    beat.term = 7;
    assert_int_equal(wire_call(&worker, RPC_HEARTBEAT, &beat.base, NULL), ERR_STALE);

    assert_int_equal(wire_answer(&worker, ask_store_get(&worker, job, "k", 30), NULL), ERR_TIMEOUT);
    uint64_t asked = ask_store_get(&worker, job, "k", WAIT_MS);
    Ds__StoreSet set = DS__STORE_SET__INIT;
    set.job = job;
    set.epoch = 1;
    set.key = (char *)"k";
    set.value.data = (uint8_t *)"here";
    set.value.len = 4;
    uint64_t told = wire_ask(&worker, RPC_STORE_SET, &set.base);
    ProtobufCMessage *value;
    assert_int_equal(wire_answer(&worker, asked, &value), 0);
    assert_memory_equal(((Ds__StoreValue *)value)->value.data, "here", 4);
    rpc_free(value);
    assert_int_equal(wire_answer(&worker, told, NULL), 0);

    uint64_t stale = ask_store_get(&worker, job, "never", WAIT_MS);
    Ds__AttemptReport report = DS__ATTEMPT_REPORT__INIT;
    Ds__RankExit x = DS__RANK_EXIT__INIT, *exits[] = {&x};
    report.job = job;
    report.epoch = 1;
    report.phase = 3;
    report.exits = exits;
    report.n_exits = 1;
    uint64_t reported = wire_ask(&worker, RPC_ATTEMPT_REPORT, &report.base);
    bool was_stale = false, was_reported = false, was_forgotten = false;
    while (!was_stale || !was_reported || !was_forgotten) {
        assert_true(wire_next(&worker, &f));
        was_stale |= f.kind == FRAME_ERROR && f.request_id == stale && f.method == RPC_STORE_GET &&
                     rpc_unpack_error(&f, &err) == ERR_STALE;
        was_reported |= f.kind == FRAME_REPLY && f.request_id == reported;
        was_forgotten |= f.kind == FRAME_REQUEST && f.method == RPC_ATTEMPT_FORGET;
    }
    assert_int_equal(store_set(&worker, job, "k", "late"), ERR_STALE);

    Ds__JobWait wait = DS__JOB_WAIT__INIT;
    ProtobufCMessage *reply;
    wait.id = job;
    assert_int_equal(wire_call(&people, RPC_JOB_WAIT, &wait.base, &reply), 0);
    assert_string_equal(((Ds__Job *)reply)->state, "COMPLETED");
    rpc_free(reply);
    wire_close(&people);
    wire_close(&worker);
}

/* Logs are asked of the worker that has them and relayed; without it, and when it goes away
 * meanwhile, that is what is said. */
static void test_logs(void **state)
{
    (void)state;
    struct wire people, worker;
    worker_join(&worker, "n1");
    wire_hello(&people);
    uint64_t job = submit(&people, one);
    worker_obey(&worker, RPC_ATTEMPT_START);
    worker_report(&worker, job, 2);

    Ds__LogRead read = DS__LOG_READ__INIT;
    read.job = job;
    read.stream = 1;
    uint64_t asked = wire_ask(&people, RPC_JOB_LOGS, &read.base);
    struct frame f;
    struct err err = {0};
    ProtobufCMessage *m;
    assert_true(wire_next(&worker, &f));
    assert_int_equal(f.method, RPC_LOG_READ);
    assert_int_equal(rpc_unpack(&f, &m, &err), 0);
    assert_int_equal(((Ds__LogRead *)m)->epoch, 1); /* the newest, filled in */
    rpc_free(m);
    Ds__LogChunk chunk = DS__LOG_CHUNK__INIT;
    chunk.data.data = (uint8_t *)"hello";
    chunk.data.len = 5;
    wire_send(&worker, RPC_LOG_READ, FRAME_REPLY, f.request_id, &chunk.base);
    assert_int_equal(wire_answer(&people, asked, &m), 0);
    assert_memory_equal(((Ds__LogChunk *)m)->data.data, "hello", 5);
    rpc_free(m);

    read.stream = 3;
    assert_int_equal(wire_call(&people, RPC_JOB_LOGS, &read.base, NULL), ERR_INVALID);
    read.stream = 2;
    asked = wire_ask(&people, RPC_JOB_LOGS, &read.base);
    assert_true(wire_next(&worker, &f));
    wire_close(&worker);
    assert_int_equal(wire_answer(&people, asked, NULL), ERR_UNREACHABLE);
    assert_int_equal(wire_call(&people, RPC_JOB_LOGS, &read.base, NULL), ERR_UNREACHABLE);
    wire_close(&people);
}

/* A start order that a worker refuses ends the attempt with its words; a second registration of a
 * node takes the place of the first. */
static void test_refused_order(void **state)
{
    (void)state;
    struct wire people, worker, again;
    struct frame f;
    worker_join(&worker, "n1");
    worker_join(&again, "n1");
    assert_false(wire_next(&worker, &f));
    wire_hello(&people);
    uint64_t job =
        submit(&people, "name: bad\ngpus_per_node: 1\ncommand: [\"true\"]\nrestart: {max: 0}\n");
    assert_true(wire_next(&again, &f));
    assert_int_equal(f.method, RPC_ATTEMPT_START);
    struct buf out = {0};
    rpc_pack_error(&out, RPC_ATTEMPT_START, f.request_id, ERR_NOT_FOUND, "no such program");
    wire_bytes(&again, &out);
    buf_fini(&out);
    Ds__JobWait wait = DS__JOB_WAIT__INIT;
    ProtobufCMessage *reply;
    wait.id = job;
    assert_int_equal(wire_call(&people, RPC_JOB_WAIT, &wait.base, &reply), 0);
    assert_string_equal(((Ds__Job *)reply)->state, "FAILED");
    assert_non_null(strstr(((Ds__Job *)reply)->reason->text, "no such program"));
    rpc_free(reply);
    wire_close(&people);
    wire_close(&again);
    wire_close(&worker);
}

int main(void)
{
#define serve_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_method), serve_test(test_strangers), serve_test(test_nonsense),
        serve_test(test_pipelined_submits),  serve_test(test_many),      serve_test(test_waits),
        serve_test(test_gone_while_waiting), serve_test(test_worker),    serve_test(test_logs),
        serve_test(test_refused_order),
    };
    return cmocka_run_group_tests_name("daemon/serve", tests, NULL, NULL);
}
