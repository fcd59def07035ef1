#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/reporter.h"
#include "proto/rpc.h"
#include "tests/unit/random.h"

#define JOB       7
#define EPOCH     3
#define STEPS_MAX 4000
#define KEYS_MAX  64

/* A worker of a few lines: one connection at a time, a store, and a dice for what goes wrong. The
 * lock guards what tests read. */
struct server {
    char folder[64], path[96];
    int listen_fd, fd;
    pthread_t thread;
    pthread_mutex_t lock;
    atomic_bool quit;
    bool chaos;       /* drop the line at random points, answer AGAIN at times */
    int refuse_steps; /* an error code for STEP_REPORT */
    int guards;
    int refuse_hello;
    atomic_bool stale, send_stop, mute;
    bool greeted;
    unsigned connections, hellos, wrong, drops;
    uint64_t steps_seen[STEPS_MAX]; /* times each step was received */
    uint64_t last_step, stall_sum;  /* of reports that were not repeats */
    uint64_t shards, goal;
    struct {
        char key[64];
        void *value;
        size_t len;
    } store[KEYS_MAX];
    size_t store_count;
    struct pending {
        uint64_t id;
        char key[64];
        int64_t until_ms;
    } pending[KEYS_MAX];
    size_t pending_count;
    struct buf in, out;
};

static void hang_up(struct server *s)
{
    if (s->fd >= 0) {
        close(s->fd);
        s->drops++;
    }
    s->fd = -1;
    s->greeted = false;
    s->pending_count = 0;
    buf_reset(&s->in);
    buf_reset(&s->out);
}

static void answer_empty(struct server *s, const struct frame *f)
{
    Ds__Empty empty = DS__EMPTY__INIT;
    rpc_pack(&s->out, f->method, FRAME_REPLY, f->request_id, &empty.base);
}

static void answer_pending(struct server *s)
{
    for (size_t i = 0; i < s->pending_count; i++) {
        const struct pending *p = &s->pending[i];
        size_t k = 0;
        while (k < s->store_count && strcmp(s->store[k].key, p->key) != 0) {
            k++;
        }
        if (k < s->store_count) {
            Ds__StoreValue v = DS__STORE_VALUE__INIT;
            v.value = (ProtobufCBinaryData){s->store[k].len, s->store[k].value};
            rpc_pack(&s->out, RPC_STORE_GET, FRAME_REPLY, p->id, &v.base);
        } else if (clock_boot_ms() >= p->until_ms) {
            rpc_pack_error(&s->out, RPC_STORE_GET, p->id, ERR_TIMEOUT, "not there yet");
        } else {
            continue;
        }
        s->pending[i--] = s->pending[--s->pending_count];
    }
}

/* A repeat must be one to the letter: the last step of a report is either new or known as the last.
 */
static void take_steps(struct server *s, const Ds__StepReport *m)
{
    s->wrong += m->job != JOB || m->epoch != EPOCH || m->n_metric == 0;
    uint64_t last = m->metric[m->n_metric - 1]->step;
    for (size_t i = 0; i < m->n_metric; i++) {
        const Ds__Metric *metric = m->metric[i];
        s->wrong += metric->epoch != EPOCH || metric->step >= STEPS_MAX ||
                    metric->step != m->metric[0]->step + i || metric->layer_maxvio == NULL ||
                    strtoull(metric->layer_maxvio + 2, NULL, 10) != metric->step;
        s->steps_seen[metric->step % STEPS_MAX]++;
    }
    if (last > s->last_step) {
        s->wrong += m->metric[0]->step != s->last_step + 1; /* in order, without a gap */
        s->last_step = last;
        s->stall_sum += m->ckpt_stall_ms;
        s->goal = m->steps;
    } else {
        s->wrong += last != s->last_step;
    }
}

static void take_request(struct server *s, const struct frame *f, ProtobufCMessage *message)
{
    if (f->method == RPC_RANK_HELLO) {
        const Ds__RankHello *m = (const Ds__RankHello *)message;
        s->wrong += s->greeted || m->job != JOB || m->epoch != EPOCH || m->rank != 5;
        s->hellos++;
        s->greeted = true;
        if (s->refuse_hello != 0) {
            rpc_pack_error(&s->out, f->method, f->request_id, s->refuse_hello, "unknown here");
        } else {
            answer_empty(s, f);
        }
        return;
    }
    s->wrong += !s->greeted; /* hello comes first */
    if (s->stale) {
        rpc_pack_error(&s->out, f->method, f->request_id, ERR_STALE, "over");
    } else if (s->chaos && random_one_in(8)) {
        int code = random_one_in(2) ? ERR_AGAIN : ERR_UNREACHABLE;
        rpc_pack_error(&s->out, f->method, f->request_id, code, "later");
    } else if (f->method == RPC_STEP_REPORT && s->refuse_steps != 0) {
        rpc_pack_error(&s->out, f->method, f->request_id, s->refuse_steps, "no such thing");
    } else if (f->method == RPC_STEP_REPORT) {
        take_steps(s, (const Ds__StepReport *)message);
        answer_empty(s, f);
    } else if (f->method == RPC_SHARD_REPORT) {
        uint64_t step = ((const Ds__ShardReport *)message)->step;
        s->wrong += s->refuse_steps == 0 && step > s->last_step; /* never ahead of its steps */
        s->shards |= (uint64_t)1 << step / 10;
        answer_empty(s, f);
    } else if (f->method == RPC_GUARD_REPORT) {
        const Ds__GuardReport *m = (const Ds__GuardReport *)message;
        s->wrong += m->job != JOB || m->epoch != EPOCH || strcmp(m->action, "replay") != 0;
        s->guards++;
        answer_empty(s, f);
    } else if (f->method == RPC_STORE_SET) {
        const Ds__StoreSet *m = (const Ds__StoreSet *)message;
        if (s->store_count < KEYS_MAX) {
            snprintf(s->store[s->store_count].key, 64, "%s", m->key);
            s->store[s->store_count].value = mem_alloc(m->value.len);
            s->store[s->store_count].len = m->value.len;
            memcpy(s->store[s->store_count++].value, m->value.data, m->value.len);
        }
        answer_empty(s, f);
    } else if (f->method == RPC_STORE_GET && s->pending_count < KEYS_MAX) {
        const Ds__StoreGet *m = (const Ds__StoreGet *)message;
        struct pending *p = &s->pending[s->pending_count++];
        p->id = f->request_id;
        p->until_ms = clock_boot_ms() + (int64_t)m->wait_ms;
        snprintf(p->key, sizeof p->key, "%s", m->key);
    } else {
        s->wrong++;
    }
}

static void take_bytes(struct server *s)
{
    uint8_t *room = buf_reserve(&s->in, 65536);
    ssize_t got = recv(s->fd, room, s->chaos ? 1 + random_below(600) : 65536, 0);
    if (got <= 0) {
        hang_up(s);
        return;
    }
    s->in.len += (size_t)got;
    struct frame f;
    size_t used;
    while (s->fd >= 0 &&
           frame_decode(s->in.data, s->in.len, FRAME_PAYLOAD_MAX, &f, &used, NULL) == 0) {
        ProtobufCMessage *message = NULL;
        if (s->chaos && random_one_in(12)) { /* dies before it acts */
            hang_up(s);
            return;
        }
        s->wrong += rpc_unpack(&f, &message, NULL) != 0;
        take_request(s, &f, message);
        rpc_free(message);
        if (s->chaos && random_one_in(12)) { /* dies between request and reply */
            hang_up(s);
            return;
        }
        buf_consume(&s->in, used);
    }
}

static void send_bytes(struct server *s)
{
    if (s->send_stop && s->greeted) {
        Ds__RankStop stop = DS__RANK_STOP__INIT;
        stop.reason = (char *)(uintptr_t) "drain";
        rpc_pack(&s->out, RPC_RANK_STOP, FRAME_ONEWAY, 0, &stop.base);
        s->send_stop = false;
    }
    size_t len = s->out.len;
    if (s->chaos && len > 1 && random_one_in(12)) { /* dies in mid-reply */
        send(s->fd, s->out.data, random_below(len), MSG_NOSIGNAL);
        hang_up(s);
    } else if (len > 0 && !s->mute) {
        send(s->fd, s->out.data, len, MSG_NOSIGNAL);
        buf_reset(&s->out);
    }
}

static void *serve(void *arg)
{
    struct server *s = arg;
    while (!s->quit) {
        struct pollfd fds[2] = {{.fd = s->fd < 0 ? s->listen_fd : -1, .events = POLLIN},
                                {.fd = s->fd, .events = POLLIN}};
        poll(fds, 2, 5);
        pthread_mutex_lock(&s->lock);
        if (fds[0].revents != 0) {
            s->fd = accept(s->listen_fd, NULL, NULL);
            s->connections++;
            if (s->chaos && random_one_in(6)) { /* dies at once */
                hang_up(s);
            }
        } else if (fds[1].revents != 0) {
            take_bytes(s);
        }
        if (s->fd >= 0) {
            answer_pending(s);
            send_bytes(s);
        }
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static void server_listen(struct server *s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, s->path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listen_fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(s->listen_fd, 8), 0);
    s->quit = false;
    pthread_create(&s->thread, NULL, serve, s);
}

static void server_init(struct server *s)
{
    memset(s, 0, sizeof *s);
    strcpy(s->folder, "/tmp/ds-reporter-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/sock", s->folder);
    pthread_mutex_init(&s->lock, NULL);
    s->fd = -1;
}

/* The process is gone; what it knew stays. */
static void server_stop(struct server *s)
{
    s->quit = true;
    pthread_join(s->thread, NULL);
    hang_up(s);
    close(s->listen_fd);
    unlink(s->path);
}

static void server_fini(struct server *s)
{
    for (size_t i = 0; i < s->store_count; i++) {
        free(s->store[i].value);
    }
    buf_fini(&s->in);
    buf_fini(&s->out);
    rmdir(s->folder);
    pthread_mutex_destroy(&s->lock);
}

static struct reporter *report_to(const struct server *s)
{
    struct reporter *r;
    assert_int_equal(reporter_create(&r, s->path, JOB, EPOCH, 5, NULL), 0);
    return r;
}

static void report_step(struct reporter *r, uint64_t step)
{
    Ds__Metric m = DS__METRIC__INIT;
    char layers[32]; /* gone when it is sent */
    snprintf(layers, sizeof layers, "3:%llu", (unsigned long long)step);
    m.step = step;
    m.loss = 1.0 / (double)step;
    m.layer_maxvio = layers;
    reporter_step(r, &m, 1000, 2, 1);
}

static void report_shard(struct reporter *r, uint64_t step)
{
    Ds__CkptShard shard = DS__CKPT_SHARD__INIT;
    shard.file = shard.xxh3 = shard.sha256 = (char *)(uintptr_t) "x";
    Ds__ShardReport m = DS__SHARD_REPORT__INIT;
    m.step = step;
    m.shard = &shard;
    m.layout = (char *)(uintptr_t) "{}";
    reporter_shard(r, &m);
}

struct getter {
    struct reporter *r;
    unsigned failures;
};

static void *get_all(void *arg)
{
    struct getter *g = arg;
    for (int i = 0; i < 20; i++) {
        char key[32];
        void *value;
        size_t len;
        snprintf(key, sizeof key, "key%d", i);
        int rc = reporter_store_get(g->r, key, 60000, &value, &len, NULL);
        g->failures += rc != 0 || len != strlen(key) || memcmp(value, key, len) != 0;
        free(value);
    }
    return NULL;
}

/* Through a line that breaks at random places every report arrives, steps in order and repeats
 * unchanged, and the store works. */
static void test_chaos(void **state)
{
    (void)state;
    static struct server s;
    random_start("reporter chaos");
    server_init(&s);
    s.chaos = true;
    server_listen(&s);
    struct reporter *r = report_to(&s);
    struct getter g = {.r = r};
    pthread_t thread;
    pthread_create(&thread, NULL, get_all, &g);
    enum { STEPS = 300 };
    for (uint64_t step = 1; step <= STEPS; step++) {
        report_step(r, step);
        if (step % 10 == 0) {
            report_shard(r, step);
        }
        if (step % 50 == 0) {
            Ds__GuardReport guard = DS__GUARD_REPORT__INIT;
            guard.decided = EPOCH;
            guard.action = (char *)(uintptr_t) "replay";
            guard.text = (char *)(uintptr_t) "a jump";
            guard.step = step;
            reporter_guard(r, &guard);
        }
        if (step % 15 == 0) {
            char key[32];
            snprintf(key, sizeof key, "key%d", (int)(step / 15 - 1));
            assert_int_equal(reporter_store_set(r, key, key, strlen(key), NULL), 0);
        }
        if (step % 100 == 0) { /* a worker that is restarted */
            server_stop(&s);
            server_listen(&s);
        }
    }
    struct err err = {0};
    int rc = reporter_flush(r, 60000, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    pthread_join(thread, NULL);
    reporter_destroy(r, 0);
    server_stop(&s);
    printf("reporter chaos: %u connections, %u broken\n", s.connections, s.drops);
    assert_true(s.drops >= 3);
    assert_int_equal(g.failures, 0);
    assert_true(s.guards >= 6); /* each, some again */
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.last_step, STEPS);
    assert_int_equal(s.stall_sum,
                     2 * STEPS); /* each step's stall once, however often it was sent */
    assert_int_equal(s.goal, 1000);
    for (uint64_t step = 1; step <= STEPS; step++) {
        assert_true(s.steps_seen[step] >= 1);
    }
    assert_int_equal(s.shards, (((uint64_t)1 << 30) - 1) << 1);
    server_fini(&s);
}

/* Reports queued while nobody listens are sent once somebody does, steps merged into few messages.
 */
static void test_late_server(void **state)
{
    (void)state;
    static struct server s;
    server_init(&s);
    struct reporter *r = report_to(&s);
    for (uint64_t step = 1; step < 2000; step++) {
        report_step(r, step);
    }
    struct err err;
    assert_int_equal(reporter_flush(r, 50, &err), ERR_TIMEOUT);
    server_listen(&s);
    assert_int_equal(reporter_flush(r, 30000, &err), 0);
    reporter_destroy(r, 0);
    server_stop(&s);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.last_step, 1999);
    assert_int_equal(s.steps_seen[1999], 1);
    assert_int_equal(s.hellos, 1);
    server_fini(&s);
}

/* ERR_STALE ends it: flush, set and get say so, later reports are ignored, the rank is to leave. */
static void test_stale(void **state)
{
    (void)state;
    static struct server s;
    server_init(&s);
    s.stale = true;
    server_listen(&s);
    struct reporter *r = report_to(&s);
    struct err err;
    void *value;
    size_t len;
    assert_false(reporter_is_stale(r));
    report_step(r, 1);
    assert_int_equal(reporter_flush(r, 30000, &err), ERR_STALE);
    assert_true(reporter_is_stale(r));
    assert_true(reporter_stop_requested(r));
    assert_int_equal(reporter_store_set(r, "k", "v", 1, &err), ERR_STALE);
    assert_int_equal(reporter_store_get(r, "k", 30000, &value, &len, &err), ERR_STALE);
    report_step(r, 2);
    assert_int_equal(reporter_flush(r, 30000, &err), ERR_STALE);
    reporter_destroy(r, 1000);
    server_stop(&s);
    server_fini(&s);
}

/* A report that is refused for good is dropped: the next ones still go, and flush ends. */
static void test_refused(void **state)
{
    (void)state;
    static struct server s;
    log_init("test", LOG_ERROR);
    server_init(&s);
    s.refuse_steps = ERR_INVALID;
    server_listen(&s);
    struct reporter *r = report_to(&s);
    struct err err;
    report_step(r, 1);
    report_shard(r, 90);
    assert_int_equal(reporter_flush(r, 30000, &err), 0);
    pthread_mutex_lock(&s.lock);
    s.refuse_steps = 0;
    s.last_step = 1;
    pthread_mutex_unlock(&s.lock);
    report_step(r, 2);
    assert_int_equal(reporter_flush(r, 30000, &err), 0);
    reporter_destroy(r, 0);
    server_stop(&s);
    assert_int_equal(s.steps_seen[1], 0);
    assert_int_equal(s.steps_seen[2], 1);
    assert_int_equal(s.shards, (uint64_t)1 << 9);
    assert_int_equal(s.wrong, 0);
    server_fini(&s);
}

/* A worker that does not know the rank yet is asked again; RANK_STOP reaches the rank; a get that
 * nobody answers times out. */
static void test_hello_stop_timeout(void **state)
{
    (void)state;
    static struct server s;
    server_init(&s);
    s.refuse_hello = ERR_NOT_FOUND;
    server_listen(&s);
    struct reporter *r = report_to(&s);
    struct err err;
    void *value;
    size_t len;
    report_step(r, 1);
    assert_int_equal(reporter_flush(r, 300, &err), ERR_TIMEOUT);
    pthread_mutex_lock(&s.lock);
    assert_true(s.hellos >= 2);
    assert_int_equal(s.last_step, 0);
    s.refuse_hello = 0;
    pthread_mutex_unlock(&s.lock);
    assert_int_equal(reporter_flush(r, 30000, &err), 0);
    assert_false(reporter_stop_requested(r));
    s.send_stop = true;
    for (int i = 0; i < 1000 && !reporter_stop_requested(r); i++) {
        clock_sleep_ms(10);
    }
    assert_true(reporter_stop_requested(r));
    assert_false(reporter_is_stale(r));
    int64_t start = clock_boot_ms();
    assert_int_equal(reporter_store_get(r, "nothing", 200, &value, &len, &err), ERR_TIMEOUT);
    assert_true(clock_boot_ms() - start >= 190);
    assert_null(value);
    s.mute = true; /* the worker hangs */
    assert_int_equal(reporter_store_get(r, "nothing", 100, &value, &len, &err), ERR_TIMEOUT);
    reporter_destroy(r, 0);
    server_stop(&s);
    assert_int_equal(s.wrong, 0);
    server_fini(&s);
}

/* A path that no socket address can hold is refused at once. */
static void test_long_path(void **state)
{
    (void)state;
    char path[200];
    struct reporter *r;
    struct err err;
    memset(path, 'x', sizeof path);
    path[0] = '/';
    path[sizeof path - 1] = 0;
    assert_int_equal(reporter_create(&r, path, 1, 1, 0, &err), ERR_USAGE);
    assert_null(r);
    reporter_destroy(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chaos),
        cmocka_unit_test(test_late_server),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hello_stop_timeout),
        cmocka_unit_test(test_long_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
