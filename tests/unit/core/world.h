/* A core without a store, driven by hand: fabricated inputs in, effects and state out. Time is what
 * the test says it is. After every step the invariants are checked and the changed rows count as
 * committed. Header-only: each test program is one file. */
#ifndef TESTS_UNIT_CORE_WORLD_H
#define TESTS_UNIT_CORE_WORLD_H

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

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/job.h"
#include "daemon/core/ledger.h"
#include "daemon/core/load.h"
#include "daemon/core/node.h"
#include "daemon/core/price.h"
#include "daemon/core/pump.h"
#include "daemon/core/state.h"
#include "lib/err.h"
#include "proto/jobspec.h"

#define UNUSED __attribute__((unused))
#define T0     1000000 /* when a world begins, ms */

struct world {
    struct core *core;
    int64_t now_ms;
    struct effect_list effects; /* of the last step */
    reply_token token;
    struct pump *pump; /* borrowed; where there is a store behind it */
    /* what appended rows said, since the beginning */
    struct ledger_row ledger[512];
    size_t ledger_count;
    char kinds[512][32];     /* of events */
    char requeue_text[2048]; /* of the last event job.requeued */
    size_t kind_count;
};

static UNUSED void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    struct core_config config;
    core_config_default(&config);
    w->core = core_create(&config);
    w->now_ms = T0;
    core_load_counters(
        w->core, &(struct core_counters){.term = 1, .now_ms = T0, .next_job = 1, .next_ckpt = 1});
    core_load_done(w->core);
    core_step(w->core,
              &(struct input){.kind = INPUT_TICK, .now_ms = T0}); /* what is due at start */
    core_committed(w->core);
}

static UNUSED void world_fini(struct world *w)
{
    effect_list_fini(&w->effects);
    core_destroy(w->core);
}

static UNUSED void world_collect(struct world *w)
{
    const struct change_list *ledger = core_changes(w->core, TABLE_LEDGER);
    for (size_t i = 0; i < change_count(ledger); i++) {
        assert_true(w->ledger_count < 512);
        w->ledger[w->ledger_count++] = *(struct ledger_row *)change_row(ledger, i);
    }
    const struct change_list *events = core_changes(w->core, TABLE_EVENT);
    for (size_t i = 0; i < change_count(events) && w->kind_count < 512; i++) {
        struct event_row *row = change_row(events, i);
        snprintf(w->kinds[w->kind_count++], 32, "%s", row->kind);
        if (strcmp(row->kind, "job.requeued") == 0) {
            snprintf(w->requeue_text, sizeof w->requeue_text, "%s", row->text);
        }
    }
}

/* One step, checked. */
static UNUSED void world_step(struct world *w, struct input *in)
{
    in->now_ms = w->now_ms;
    core_step(w->core, in);
    const char *problem = core_check(w->core);
    if (problem != NULL) {
        fail_msg("%s", problem);
    }
    world_collect(w);
    effect_list_fini(&w->effects);
    w->effects = w->core->effects;
    w->core->effects = (struct effect_list){0};
    if (w->pump != NULL) {
        assert_int_equal(pump_flush(w->pump, NULL), 0);
    } else {
        core_committed(w->core);
    }
}

/* The nth effect of that kind of the last step, or NULL. */
static UNUSED struct effect *world_effect(struct world *w, enum effect_kind kind, size_t n)
{
    for (size_t i = 0; i < w->effects.count; i++) {
        if (w->effects.items[i].kind == kind && n-- == 0) {
            return &w->effects.items[i];
        }
    }
    return NULL;
}

static UNUSED size_t world_count(struct world *w, enum effect_kind kind)
{
    size_t count = 0;
    while (world_effect(w, kind, count) != NULL) {
        count++;
    }
    return count;
}

static UNUSED bool world_had_event(const struct world *w, const char *kind)
{
    for (size_t i = 0; i < w->kind_count; i++) {
        if (strcmp(w->kinds[i], kind) == 0) {
            return true;
        }
    }
    return false;
}

/* The code of the reply to the last step. */
static UNUSED int world_code(struct world *w)
{
    struct effect *reply = world_effect(w, EFFECT_REPLY, 0);
    assert_non_null(reply);
    assert_int_equal(reply->u.reply.token, w->token);
    assert_non_null(reply->u.reply.text);
    assert_true((reply->u.reply.code == 0) == (reply->u.reply.text[0] == 0));
    return reply->u.reply.code;
}

static UNUSED struct job *world_job(struct world *w, uint64_t id)
{
    return core_job(w->core, id);
}

/* Runs the timers that come due up to then, each at its time. */
static UNUSED void world_run_to(struct world *w, int64_t at_ms)
{
    while (core_deadline(w->core) <= at_ms) {
        int64_t due_ms = core_deadline(w->core);
        w->now_ms = due_ms > w->now_ms ? due_ms : w->now_ms;
        struct input in = {.kind = INPUT_TICK};
        world_step(w, &in);
    }
    w->now_ms = at_ms;
}

/* ---------------------------------------------------------------- inputs */

static UNUSED struct jobspec world_spec(uint32_t nodes, uint32_t gpus)
{
    static char name[] = "j", account[] = "a", stage[] = "pretrain", queue[] = "default";
    return (struct jobspec){
        .name = name,
        .account = account,
        .stage = stage,
        .queue = queue,
        .nodes_min = nodes,
        .nodes_max = nodes,
        .gpus_per_node = gpus,
        .has_train = true,
        .train = {.steps = 100},
        .checkpoint = {.keep = 3},
        .restart_max = 3,
    };
}

static UNUSED uint64_t world_submit_spec(struct world *w, const struct jobspec *spec,
                                         const char *key, const char *hash)
{
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = ++w->token};
    in.u.submit = (struct input_submit){.spec = spec,
                                        .spec_json = "{}",
                                        .workdir = "/tmp",
                                        .user = "u",
                                        .key = key,
                                        .request_hash = hash};
    world_step(w, &in);
    struct effect *reply = world_effect(w, EFFECT_REPLY, 0);
    return reply->u.reply.code == 0 ? reply->u.reply.id : 0;
}

static UNUSED uint64_t world_submit(struct world *w, uint32_t nodes, uint32_t gpus)
{
    struct jobspec spec = world_spec(nodes, gpus);
    return world_submit_spec(w, &spec, NULL, "h");
}

static UNUSED void world_register_with(struct world *w, session_id session, const char *name,
                                       size_t gpus, const struct input_attempt_report *attempts,
                                       size_t attempt_count)
{
    struct input_gpu list[64];
    char uuids[64][64];
    for (size_t i = 0; i < gpus; i++) {
        snprintf(uuids[i], sizeof uuids[i], "%s-%zu", name, i);
        list[i] = (struct input_gpu){
            .index = (uint32_t)i, .uuid = uuids[i], .model = "cpu", .health = "ok"};
    }
    struct input in = {.kind = INPUT_WORKER_REGISTER, .token = ++w->token, .session = session};
    in.u.reg = (struct input_register){.name = name,
                                       .boot_id = "b",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .gpus = list,
                                       .gpu_count = gpus,
                                       .attempts = attempts,
                                       .attempt_count = attempt_count};
    world_step(w, &in);
}

static UNUSED void world_register(struct world *w, session_id session, const char *name,
                                  size_t gpus)
{
    world_register_with(w, session, name, gpus, NULL, 0);
}

static UNUSED void world_gone(struct world *w, session_id session)
{
    struct input in = {.kind = INPUT_WORKER_GONE, .session = session};
    world_step(w, &in);
}

static UNUSED void world_heartbeat(struct world *w, session_id session)
{
    struct input in = {.kind = INPUT_HEARTBEAT, .token = ++w->token, .session = session};
    world_step(w, &in);
}

static UNUSED void world_report(struct world *w, session_id session, uint64_t job, uint64_t epoch,
                                uint32_t phase, const struct input_exit *exits, size_t exit_count)
{
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .token = ++w->token, .session = session};
    in.u.attempt = (struct input_attempt_report){
        .job = job, .epoch = epoch, .phase = phase, .exits = exits, .exit_count = exit_count};
    world_step(w, &in);
}

static UNUSED struct input_exit world_exit(struct world *w, uint32_t rank, int32_t code)
{
    return (struct input_exit){.rank = rank, .code = code, .at_ms = w->now_ms};
}

static UNUSED struct input_exit world_killed(struct world *w, uint32_t rank, int32_t signal)
{
    return (struct input_exit){.rank = rank, .code = -1, .signal = signal, .at_ms = w->now_ms};
}

/* One exit of one rank, in a report of that phase. */
static UNUSED void world_report_exit(struct world *w, session_id session, uint64_t job,
                                     uint64_t epoch, uint32_t phase, struct input_exit x)
{
    world_report(w, session, job, epoch, phase, &x, 1);
}

static UNUSED int world_shard(struct world *w, session_id session, uint64_t job, uint64_t epoch,
                              uint64_t step, uint32_t world_size, uint32_t rank)
{
    struct input in = {.kind = INPUT_SHARD_REPORT, .token = ++w->token, .session = session};
    in.u.shard = (struct input_shard){
        .job = job,
        .epoch = epoch,
        .step = step,
        .world_size = world_size,
        .rank = rank,
        .file = "shard.safetensors",
        .xxh3 = "0123456789abcdef0123456789abcdef",
        .sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .bytes = 1000,
        .layout = "{}",
    };
    world_step(w, &in);
    return world_code(w);
}

static UNUSED int world_steps(struct world *w, session_id session, uint64_t job, uint64_t epoch,
                              uint64_t step, uint64_t stall_ms, uint64_t wait_ms)
{
    struct input in = {.kind = INPUT_STEP_REPORT, .token = ++w->token, .session = session};
    struct input_metric metric = {.step = step,
                                  .epoch = epoch,
                                  .tokens = step * 1000,
                                  .loss = 3.0,
                                  .mtp_loss = NAN,
                                  .grad_norm = 1.0,
                                  .lr = NAN,
                                  .tokens_per_s = 10,
                                  .balance_maxvio = NAN,
                                  .valid_loss = NAN,
                                  .valid_maxvio = NAN,
                                  .step_ms = 100};
    in.u.steps = (struct input_steps){.job = job,
                                      .epoch = epoch,
                                      .steps = 100,
                                      .metrics = &metric,
                                      .metric_count = 1,
                                      .ckpt_stall_ms = stall_ms,
                                      .data_wait_ms = wait_ms};
    world_step(w, &in);
    return world_code(w);
}

static UNUSED int world_order(struct world *w, enum input_kind kind, uint64_t job)
{
    struct input in = {.kind = kind, .token = ++w->token};
    in.u.job.job = job;
    in.u.job.user = "u";
    in.u.job.reason = "why not";
    world_step(w, &in);
    return world_code(w);
}

static UNUSED int world_node_order(struct world *w, enum input_kind kind, const char *name)
{
    struct input in = {.kind = kind, .token = ++w->token};
    in.u.node.name = name;
    in.u.node.user = "op";
    in.u.node.reason = "fans";
    world_step(w, &in);
    return world_code(w);
}

static UNUSED int world_ckpt_answer(struct world *w, enum input_kind kind, uint64_t ckpt, bool ok,
                                    const char *text)
{
    struct input in = {.kind = kind, .token = ++w->token};
    in.u.ckpt.ckpt = ckpt;
    in.u.ckpt.ok = ok;
    in.u.ckpt.text = text;
    world_step(w, &in);
    return world_code(w);
}

/* Accepted and started on that node. */
static UNUSED void world_start(struct world *w, session_id session, uint64_t job, uint64_t epoch)
{
    world_report(w, session, job, epoch, 1, NULL, 0);
    world_report(w, session, job, epoch, 2, NULL, 0);
}

/* What the ledger has booked so far, of closed intervals. */
static UNUSED int64_t world_booked(const struct world *w, uint64_t gpu, enum category category,
                                   uint64_t job)
{
    int64_t sum = 0;
    for (size_t i = 0; i < w->ledger_count; i++) {
        const struct ledger_row *row = &w->ledger[i];
        if ((gpu == 0 || row->gpu_id == gpu) && row->category == category && row->job_id == job) {
            sum += row->end_ms - row->start_ms;
        }
    }
    return sum;
}

static UNUSED struct gpu_row *world_gpu(struct world *w, uint64_t id)
{
    return &core_gpu(w->core, id)->row;
}

#endif
