/* A core with the real store behind it, in a folder of its own, and a read-only view on the tables.
 * Fabricated inputs go in, each committed at once; time is what the test says it is. Header-only:
 * each test program is one file. */
#ifndef TESTS_UNIT_DAEMON_LIVE_H
#define TESTS_UNIT_DAEMON_LIVE_H

/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/pump.h"
#include "daemon/store.h"
#include "daemon/views.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

#define UNUSED  __attribute__((unused))
#define LIVE_T0 1795000000000 /* when a test begins: 2026-11-18 */

struct live {
    char dir[64];
    struct store *store;
    struct core *core;
    struct pump *pump;
    struct views *views;
    int64_t now_ms;
    /* the last reply */
    int code;
    uint64_t id;
    char text[512];
    uint64_t started; /* orders to start an attempt, so far */
};

static UNUSED void live_release(void *world, const struct effect *e)
{
    struct live *l = world;
    if (e->kind == EFFECT_REPLY) {
        l->code = e->u.reply.code;
        l->id = e->u.reply.id;
        snprintf(l->text, sizeof l->text, "%s", e->u.reply.text);
    } else if (e->kind == EFFECT_ATTEMPT_START) {
        l->started++;
    }
}
static UNUSED const struct effect_sink live_sink = {live_release};

static UNUSED bool live_why(void *core, uint64_t job, char *code, size_t code_bytes, char *text,
                            size_t text_bytes)
{
    return core_why(core, job, code, code_bytes, text, text_bytes);
}
static UNUSED bool live_node(void *core, uint64_t node_id, int64_t *seen_ms)
{
    int64_t at_ms = core_seen_ms(core, node_id);
    *seen_ms = at_ms > *seen_ms ? at_ms : *seen_ms;
    return core_session_of_node(core, node_id) != 0;
}

#define live_ok(expr)                                                                              \
    do {                                                                                           \
        struct err live_err = {0};                                                                 \
        if ((expr) != 0) {                                                                         \
            fail_msg("%s: %s", #expr, live_err.text);                                              \
        }                                                                                          \
    } while (0)

static UNUSED int live_setup(void **state)
{
    struct live *l = mem_alloc(sizeof *l);
    snprintf(l->dir, sizeof l->dir, "/tmp/ds-live-XXXXXX");
    assert_non_null(mkdtemp(l->dir));
    struct core_config config;
    core_config_default(&config);
    l->core = core_create(&config);
    l->now_ms = LIVE_T0;
    live_ok(store_open(&l->store, l->dir, &live_err));
    /* Prices that do not divide the hour, so that rounding shows. */
    live_ok(store_set_price(l->store, "*", 0, 1000003, &live_err));
    live_ok(store_set_price(l->store, "fast", 0, 3333331, &live_err));
    live_ok(store_load(l->store, l->core, l->now_ms, &live_err));
    l->pump = pump_create(l->core, &store_sqlite_ops, l->store, &live_sink, l);
    struct views_live live = {.world = l->core, .node = live_node, .why = live_why};
    live_ok(views_open(&l->views, l->dir, &live, &live_err));
    *state = l;
    return 0;
}

static UNUSED int live_teardown(void **state)
{
    struct live *l = *state;
    views_close(l->views);
    pump_destroy(l->pump);
    core_destroy(l->core);
    store_close(l->store);
    file_remove_tree(l->dir, NULL);
    free(l);
    return 0;
}

/* Decided, stored and released. Returns the reply's code. */
static UNUSED int live_input(struct live *l, struct input *in)
{
    in->token = 1;
    in->now_ms = l->now_ms;
    l->code = 0;
    pump_input(l->pump, in);
    live_ok(pump_flush(l->pump, &live_err));
    return l->code;
}

/* Lets time pass; timers go off when they are due. */
static UNUSED void live_wait(struct live *l, int64_t ms)
{
    int64_t until_ms = l->now_ms + ms;
    while (core_deadline(l->core) <= until_ms) {
        l->now_ms = core_deadline(l->core) > l->now_ms ? core_deadline(l->core) : l->now_ms;
        live_input(l, &(struct input){.kind = INPUT_TICK});
    }
    l->now_ms = until_ms;
}

/* ------------------------------------------------------------------ inputs */

static UNUSED int live_register(struct live *l, session_id session, const char *name,
                                const char *model, size_t gpus)
{
    struct input_gpu list[8];
    char uuids[8][64];
    for (size_t i = 0; i < gpus; i++) {
        snprintf(uuids[i], sizeof uuids[i], "%s-%zu", name, i);
        list[i] = (struct input_gpu){.index = (uint32_t)i,
                                     .uuid = uuids[i],
                                     .model = model,
                                     .memory_bytes = 80,
                                     .health = "ok"};
    }
    struct input in = {.kind = INPUT_WORKER_REGISTER, .session = session};
    in.u.reg = (struct input_register){.name = name,
                                       .boot_id = "b",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .gpus = list,
                                       .gpu_count = gpus};
    return live_input(l, &in);
}

struct live_job {
    const char *name, *user, *account, *queue, *stage;
    uint32_t nodes, gpus;
};

/* The id, 0 when refused. */
static UNUSED uint64_t live_submit(struct live *l, const struct live_job *job)
{
    char yaml[512];
    struct jobspec spec;
    snprintf(yaml, sizeof yaml,
             "name: %s\naccount: %s\nqueue: %s\nstage: %s\nnodes: %u\ngpus_per_node: %u\ncommand: "
             "[\"true\"]\n",
             job->name, job->account ? job->account : "default",
             job->queue ? job->queue : "default", job->stage ? job->stage : "pretrain", job->nodes,
             job->gpus);
    live_ok(jobspec_parse(&spec, yaml, strlen(yaml), "job.yaml", "/", NULL, 0, &live_err));
    char *json = jobspec_to_json(&spec);
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = json,
                                        .workdir = "/work",
                                        .user = job->user ? job->user : "u",
                                        .request_hash = "h"};
    int code = live_input(l, &in);
    free(json);
    jobspec_fini(&spec);
    return code == 0 ? l->id : 0;
}

static UNUSED int live_report(struct live *l, session_id session, uint64_t job, uint64_t epoch,
                              uint32_t phase, const struct input_exit *exits, size_t exit_count)
{
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = session};
    in.u.attempt = (struct input_attempt_report){
        .job = job, .epoch = epoch, .phase = phase, .exits = exits, .exit_count = exit_count};
    return live_input(l, &in);
}

static UNUSED int live_steps(struct live *l, session_id session, uint64_t job, uint64_t epoch,
                             uint64_t step)
{
    struct input_metric metric = {.step = step,
                                  .epoch = epoch,
                                  .tokens = step * 1000,
                                  .loss = 5.0 - (double)step / 100,
                                  .mtp_loss = NAN,
                                  .grad_norm = 0.5,
                                  .lr = 1e-3,
                                  .tokens_per_s = 77,
                                  .balance_maxvio = NAN,
                                  .valid_loss = NAN,
                                  .valid_maxvio = step == 20 ? 0.25 : NAN,
                                  .layer_maxvio = step == 20 ? "1:0.5,2:0.125" : NULL,
                                  .step_ms = 100};
    struct input in = {.kind = INPUT_STEP_REPORT, .session = session};
    in.u.steps = (struct input_steps){.job = job,
                                      .epoch = epoch,
                                      .steps = 100,
                                      .metrics = &metric,
                                      .metric_count = 1,
                                      .ckpt_stall_ms = 3,
                                      .data_wait_ms = 4};
    return live_input(l, &in);
}

static UNUSED int live_shard(struct live *l, session_id session, uint64_t job, uint64_t epoch,
                             uint64_t step, uint32_t world_size, uint32_t rank)
{
    char file[64];
    snprintf(file, sizeof file, "shard-%05u-of-%05u.safetensors", rank, world_size);
    struct input in = {.kind = INPUT_SHARD_REPORT, .session = session};
    in.u.shard = (struct input_shard){
        .job = job,
        .epoch = epoch,
        .step = step,
        .world_size = world_size,
        .rank = rank,
        .file = file,
        .xxh3 = "0123456789abcdef0123456789abcdef",
        .sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .bytes = 1000 + rank,
        .layout = "{}",
    };
    return live_input(l, &in);
}

static UNUSED int live_job_order(struct live *l, enum input_kind kind, uint64_t job,
                                 const char *reason)
{
    struct input in = {.kind = kind};
    in.u.job.job = job;
    in.u.job.user = "boss";
    in.u.job.reason = reason;
    return live_input(l, &in);
}

static UNUSED int live_node_order(struct live *l, enum input_kind kind, const char *name)
{
    struct input in = {.kind = kind};
    in.u.node.name = name;
    in.u.node.user = "op";
    in.u.node.reason = "fans";
    return live_input(l, &in);
}

#endif
