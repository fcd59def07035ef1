/* The launcher's coordinator, spoken to by real reporters in threads; the run folder; the step
 * line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "proto/reporter.h"
#include "trainer/launcher_coord.h"
#include "trainer/report.h"
#include "trainer/run_dir.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_launcher.XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

/* ---- a coordinator in a thread */

enum { WORLD = 3 };

struct server {
    struct coord *coord;
    pthread_t thread;
    atomic_bool stop;
    atomic_int commits;
    struct err err;
    char socket[96], ckpt[96], metrics[96];
};

static void on_commit(void *ctx, uint64_t step, uint64_t bytes)
{
    struct server *s = ctx;
    (void)step, (void)bytes;
    atomic_fetch_add(&s->commits, 1);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    struct pollfd *fds = mem_alloc_array(coord_poll_max(s->coord), sizeof *fds);
    while (!atomic_load(&s->stop)) {
        size_t n = coord_poll_fill(s->coord, fds);
        int timeout = coord_poll_timeout(s->coord);
        poll(fds, n, timeout < 0 || timeout > 10 ? 10 : timeout);
        if (coord_handle(s->coord, fds, n, &s->err) != 0) {
            break;
        }
    }
    free(fds);
    return NULL;
}

static void start(struct server *s, const char *name)
{
    *s = (struct server){0};
    snprintf(s->socket, sizeof s->socket, "%s/%s.sock", dir, name);
    snprintf(s->ckpt, sizeof s->ckpt, "%s/%s-ckpt", dir, name);
    snprintf(s->metrics, sizeof s->metrics, "%s/%s.jsonl", dir, name);
    const struct coord_options options = {.socket_path = s->socket,
                                          .job = 0,
                                          .epoch = 4,
                                          .world = WORLD,
                                          .ckpt_dir = s->ckpt,
                                          .metrics_path = s->metrics,
                                          .committed = on_commit,
                                          .ctx = s};
    assert_int_equal(coord_create(&s->coord, &options, NULL), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    coord_destroy(s->coord);
}

static struct reporter *rank(const struct server *s, uint64_t epoch, uint32_t r)
{
    struct reporter *reporter;
    assert_int_equal(reporter_create(&reporter, s->socket, 0, epoch, r, NULL), 0);
    return reporter;
}

static void report_shard(struct reporter *r, uint32_t index, uint64_t step, const char *layout)
{
    char file[64];
    char xxh3[33];
    char sha256[65];
    memset(xxh3, 'a', 32);
    memset(sha256, 'b', 64);
    xxh3[32] = sha256[64] = 0;
    snprintf(file, sizeof file, "shard-%05u-of-%05u.safetensors", index, (unsigned)WORLD);
    Ds__CkptShard shard = DS__CKPT_SHARD__INIT;
    shard.rank = index;
    shard.file = file;
    shard.bytes = 100;
    shard.xxh3 = xxh3;
    shard.sha256 = sha256;
    Ds__ShardReport m = DS__SHARD_REPORT__INIT;
    m.step = step;
    m.world_size = WORLD;
    m.shard = &shard;
    m.layout = (char *)layout;
    reporter_shard(r, &m);
}

struct late {
    struct reporter *r;
    int rc;
    void *value;
    size_t len;
};

static void *get_late(void *arg)
{
    struct late *l = arg;
    l->rc = reporter_store_get(l->r, "key", 20000, &l->value, &l->len, NULL);
    return NULL;
}

/* A value reaches those who asked before it was there and those who ask after; one that never comes
 * is a time-out. */
static void test_store(void **state)
{
    (void)state;
    struct server s;
    start(&s, "store");
    struct reporter *a = rank(&s, 4, 0);
    struct reporter *b = rank(&s, 4, 1);
    struct late late = {.r = a};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, get_late, &late), 0);
    clock_sleep_ms(50);
    assert_int_equal(reporter_store_set(b, "key", "some\0thing", 10, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(late.rc, 0);
    assert_int_equal(late.len, 10);
    assert_memory_equal(late.value, "some\0thing", 10);
    free(late.value);
    void *value;
    size_t len;
    assert_int_equal(reporter_store_get(b, "key", 1000, &value, &len, NULL), 0);
    assert_int_equal(len, 10);
    free(value);
    struct err err = {0};
    assert_int_equal(reporter_store_get(b, "other", 100, &value, &len, &err), ERR_TIMEOUT);
    reporter_destroy(a, 0);
    reporter_destroy(b, 0);
    stop(&s);
}

/* A checkpoint is committed by its last shard, not before; an acknowledged flush of all ranks means
 * that the manifest is there. */
static void test_commit(void **state)
{
    (void)state;
    struct server s;
    start(&s, "commit");
    char folder[128];
    snprintf(folder, sizeof folder, "%s/step-%010u", s.ckpt, 20u);
    assert_int_equal(file_mkdirs(folder, 0700, NULL), 0);
    struct reporter *r[WORLD];
    for (uint32_t i = 0; i < WORLD; i++) {
        r[i] = rank(&s, 4, i);
    }
    struct manifest m = {0};
    for (uint32_t i = 0; i < WORLD; i++) {
        assert_int_equal(manifest_read(&m, folder, NULL), ERR_NOT_FOUND);
        assert_int_equal(atomic_load(&s.commits), 0);
        report_shard(r[i], i, 20, "{\"step\":20}");
        report_shard(r[i], i, 20, "{\"step\":20}"); /* a repeat changes nothing */
        assert_int_equal(reporter_flush(r[i], 10000, NULL), 0);
    }
    assert_int_equal(atomic_load(&s.commits), 1);
    assert_int_equal(manifest_read(&m, folder, NULL), 0);
    assert_int_equal(m.step, 20);
    assert_int_equal(m.epoch, 4);
    assert_int_equal(m.world_size, WORLD);
    assert_string_equal(m.shards[2].file, "shard-00002-of-00003.safetensors");
    manifest_fini(&m);
    for (uint32_t i = 0; i < WORLD; i++) {
        reporter_destroy(r[i], 0);
    }
    stop(&s);
    assert_int_equal(s.err.code, 0);
}

/* A checkpoint that cannot be committed ends the run with the reason. */
static void test_commit_fails(void **state)
{
    (void)state;
    struct server s;
    start(&s, "fails"); /* nobody made the folder */
    struct reporter *r = rank(&s, 4, 0);
    for (uint32_t i = 0; i < WORLD; i++) {
        report_shard(r, i, 30, "{}");
    }
    pthread_join(s.thread, NULL);
    assert_int_equal(s.err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(s.err.text, "step 30"));
    coord_destroy(s.coord);
    reporter_destroy(r, 0);
}

/* Metrics arrive once each, at full precision, in order. */
static void test_metrics(void **state)
{
    (void)state;
    struct server s;
    start(&s, "metrics");
    struct reporter *r = rank(&s, 4, 0);
    for (uint64_t step = 1; step <= 100; step++) {
        Ds__Metric m = DS__METRIC__INIT;
        m.step = step;
        m.loss = 1.0 / (double)step;
        m.has_valid_loss = step == 3;
        m.valid_loss = 0.1;
        reporter_step(r, &m, 100, 0, 0);
    }
    assert_int_equal(reporter_flush(r, 10000, NULL), 0);
    reporter_destroy(r, 0);
    stop(&s);
    struct buf text = {0};
    assert_int_equal(file_read(s.metrics, 1 << 20, &text, NULL), 0);
    char *line = buf_cstr(&text);
    for (unsigned step = 1; step <= 100; step++) {
        unsigned got;
        double loss;
        assert_int_equal(
            sscanf(line, "{\"step\":%u,\"epoch\":4,\"tokens\":0,\"loss\":%lf", &got, &loss), 2);
        assert_int_equal(got, step);
        assert_true(loss == 1.0 / step);
        char *end = strchr(line, '\n');
        *end = 0;
        assert_int_equal(strstr(line, "\"valid_loss\":0.1") != NULL, step == 3);
        line = end + 1;
    }
    assert_string_equal(line, "");
    buf_fini(&text);
}

/* A rank of an epoch that is over is told so. */
static void test_stale(void **state)
{
    (void)state;
    struct server s;
    start(&s, "stale");
    struct reporter *r = rank(&s, 3, 0);
    void *value;
    size_t len;
    struct err err = {0};
    assert_int_equal(reporter_store_get(r, "key", 5000, &value, &len, &err), ERR_STALE);
    assert_true(reporter_is_stale(r));
    reporter_destroy(r, 0);
    stop(&s);
}

/* Garbage on the socket costs its own connection only. */
static void test_garbage(void **state)
{
    (void)state;
    struct server s;
    start(&s, "garbage");
    struct reporter *r = rank(&s, 4, 0);
    for (int i = 0; i < 20; i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", s.socket);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(send(fd, "GET / HTTP/1.0\r\n\r\n0123456789012345", 34, MSG_NOSIGNAL), 34);
        if (i % 2 == 0) {
            char byte;
            assert_true(recv(fd, &byte, 1, 0) <= 0);
        }
        close(fd);
    }
    assert_int_equal(reporter_store_set(r, "key", "x", 1, NULL), 0);
    reporter_destroy(r, 0);
    stop(&s);
}

/* ---- the run folder */

static void commit(struct run_dir *d, uint64_t step, bool with_manifest)
{
    char path[256];
    snprintf(path, sizeof path, "%s/step-%010llu", d->ckpt_dir, (unsigned long long)step);
    assert_int_equal(file_mkdirs(path, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/step-%010llu/MANIFEST.json", d->ckpt_dir,
             (unsigned long long)step);
    if (with_manifest) {
        assert_int_equal(file_write_durable(path, "{}", 2, 0600, NULL), 0);
    }
}

static void expect_steps(const struct run_dir *d, const uint64_t *steps, size_t count)
{
    assert_int_equal(d->count, count);
    for (size_t i = 0; i < count; i++) {
        char manifest[512];
        assert_int_equal(d->ckpts[i].step, steps[i]);
        snprintf(manifest, sizeof manifest, "%s/MANIFEST.json", d->ckpts[i].path);
        assert_int_equal(access(manifest, F_OK), 0);
    }
}

/* After every commit there is a checkpoint from which the guard can go back twice, as soon as the
 * run is that long, and never more than keep and four; what a rollback gave up does not stand in
 * for one. */
static void test_keeps_for_the_guard(void **state)
{
    (void)state;
    char out[96];
    struct run_dir d;
    struct err err = {0};
    snprintf(out, sizeof out, "%s/guarded", dir);
    assert_int_equal(run_dir_open(&d, out, NULL, &err), 0);
    for (uint64_t step = 10; step <= 1000; step += 10) {
        commit(&d, step, true);
        run_dir_committed(&d, step, 2, 100);
        assert_true(d.count <= 2 + 4);
        assert_int_equal(d.ckpts[d.count - 1].step, step);
        assert_true(step == 10 || d.ckpts[d.count - 2].step == step - 10);
        for (uint64_t back = 100; back <= 200 && back + 10 <= step; back += 100) {
            size_t i = d.count;
            while (i > 0 && d.ckpts[i - 1].step > step - back) {
                i--;
            }
            assert_true(i > 0);
        }
    }
    expect_steps(&d, (const uint64_t[]){800, 900, 990, 1000}, 4);
    run_dir_close(&d);

    /* back to 800: 900 and on are of the way that was given up */
    assert_int_equal(run_dir_open(&d, out, NULL, &err), 0);
    commit(&d, 810, true);
    run_dir_committed(&d, 810, 2, 100);
    expect_steps(&d, (const uint64_t[]){800, 1000, 810}, 3);
    commit(&d, 820, true);
    run_dir_committed(&d, 820, 2, 100);
    expect_steps(&d, (const uint64_t[]){800, 810, 820}, 3);
    commit(&d, 830, true);
    run_dir_committed(&d, 830, 2, 0); /* the guard is off */
    expect_steps(&d, (const uint64_t[]){820, 830}, 2);
    run_dir_close(&d);
}

/* Each start is a new epoch; committed checkpoints are found oldest first over epochs, the rest is
 * removed at the end; `keep` counts over epochs; a second user is refused. */
static void test_run_dir(void **state)
{
    (void)state;
    char out[96];
    struct run_dir d;
    struct run_dir other;
    struct err err = {0};
    snprintf(out, sizeof out, "%s/run/deep/er", dir);
    assert_int_equal(run_dir_open(&d, out, NULL, &err), 0);
    assert_int_equal(d.epoch, 1);
    assert_int_equal(d.count, 0);
    assert_null(run_dir_newest(&d));
    assert_int_equal(run_dir_open(&other, out, NULL, &err), ERR_CONFLICT);
    commit(&d, 100, true);
    commit(&d, 20, true);
    commit(&d, 110, false);
    run_dir_close(&d);
    run_dir_close(&d);

    assert_int_equal(run_dir_open(&d, out, NULL, &err), 0);
    assert_int_equal(d.epoch, 2);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.ckpts[0].step, 20);
    assert_int_equal(d.ckpts[1].step, 100);
    assert_null(run_dir_newest(&d)); /* {} is no manifest */
    commit(&d, 30, true);
    run_dir_committed(&d, 30, 2, 0);
    assert_int_equal(d.count, 2);
    run_dir_close(&d);

    assert_int_equal(run_dir_open(&d, out, NULL, &err), 0);
    assert_int_equal(d.epoch, 3);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.ckpts[0].step, 100);
    assert_int_equal(d.ckpts[1].step, 30); /* newest in time, not in steps */
    assert_int_equal(d.ckpts[1].epoch, 2);
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/e0001/step-0000000110", out);
    assert_int_not_equal(access(path, F_OK), 0);
    run_dir_close(&d);
    assert_int_equal(run_dir_open(&d, "/proc/nothing", NULL, &err), ERR_NOT_FOUND);

    /* checkpoints somewhere else: found there, locked there */
    char root[96];
    char second[96];
    snprintf(root, sizeof root, "%s/elsewhere", dir);
    snprintf(second, sizeof second, "%s/second", dir);
    assert_int_equal(run_dir_open(&d, out, root, &err), 0);
    assert_int_equal(d.count, 0);
    assert_memory_equal(d.ckpt_dir, root, strlen(root));
    commit(&d, 5, true);
    assert_int_equal(run_dir_open(&other, second, root, &err), ERR_CONFLICT);
    run_dir_close(&d);
    assert_int_equal(run_dir_open(&d, second, root, &err), 0);
    assert_int_equal(d.count, 1);
    run_dir_close(&d);
}

/* ---- the step line */

/* The line of the contract, with what is there and without what is not. */
static void test_line(void **state)
{
    (void)state;
    char line[512];
    struct report_step s = {.step = 120,
                            .tokens = 491520,
                            .loss = 2.31414,
                            .mtp_loss = 2.5012,
                            .balance_maxvio = 0.21,
                            .grad_norm = 0.812,
                            .lr = 2.2e-4,
                            .valid_loss = NAN,
                            .valid_maxvio = NAN,
                            .tokens_per_s = 15321.3,
                            .step_ms = 267};
    report_format(&s, line, sizeof line);
    assert_string_equal(line, "step=120 tokens=491520 loss=2.3141 mtp_loss=2.5012 "
                              "balance_maxvio=0.21 grad_norm=0.812 lr=2.2e-04 tok_s=15321 "
                              "step_ms=267");
    s.mtp_loss = s.balance_maxvio = NAN;
    s.valid_loss = 2.4;
    s.valid_maxvio = 0.052;
    s.layer_maxvio = (const double[]){0.25, 1};
    s.router_count = 2;
    report_format(&s, line, sizeof line);
    assert_string_equal(line, "step=120 tokens=491520 loss=2.3141 grad_norm=0.812 lr=2.2e-04 "
                              "tok_s=15321 step_ms=267 valid_loss=2.4000 valid_maxvio=0.05 "
                              "maxvio_layers=0.25,1.00");
    assert_int_equal(report_format(&s, line, 20), 19);
    assert_int_equal(strlen(line), 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),   cmocka_unit_test(test_commit),
        cmocka_unit_test(test_metrics), cmocka_unit_test(test_commit_fails),
        cmocka_unit_test(test_stale),   cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_run_dir), cmocka_unit_test(test_keeps_for_the_guard),
        cmocka_unit_test(test_line),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
