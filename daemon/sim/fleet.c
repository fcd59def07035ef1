#include "daemon/sim/fleet.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/load.h"
#include "daemon/core/price.h"
#include "daemon/core/rows.h"
#include "daemon/sim/fleet_state.h"
#include "daemon/sim/rng.h"
#include "daemon/sim/store_mem.h"
#include "lib/hash.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

#define STUCK_MS              (30 * 86400000LL)
#define ASKS_AGAIN_MS         1000
#define NAME(text, otherwise) ((text) != NULL ? (text) : (otherwise))

void fleet_after(struct fleet *f, int64_t delay_ms, fleet_fn fn, uint64_t a, uint64_t b)
{
    heap_add(&f->heap, f->now_ms + (delay_ms > 0 ? delay_ms : 0), (void (*)(void))fn, a, b, NULL);
}

void fleet_note(struct fleet *f, uint64_t a, uint64_t b)
{
    uint64_t words[3] = {a, b, (uint64_t)f->now_ms};
    f->result->hash = hash_xxh3(words, sizeof words, f->result->hash);
}

void fleet_trace(const struct fleet *f, const char *fmt, ...)
{
    if (!f->setup->verbose) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%12.3f ", (double)f->now_ms / 1000);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

void fleet_input(struct fleet *f, struct input *in)
{
    if (f->core == NULL) {
        return;
    }
    in->now_ms = FLEET_EPOCH_MS + f->now_ms;
    f->result->inputs++;
    fleet_note(f, (uint64_t)in->kind, in->session);
    struct fnode *node = fleet_node_of(f, in->session);
    if (node != NULL) {
        node->seen_ms = f->now_ms;
    }
    pump_input(f->pump, in);
}

/* ---- users */
/* It was not submitted, and will not be. */
static bool is_dropped(const struct fleet_job *job)
{
    return job->submitted_ms < 0 && job->state == JOB_CANCELLED;
}

static void submit(struct fleet *f, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct fleet_job *job = &f->jobs[index];
    if (is_dropped(job)) {
        return;
    }
    if (f->core == NULL) {
        fleet_after(f, ASKS_AGAIN_MS, submit, index, 0);
        return;
    }
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, index);
    struct jobspec spec = {.name = NAME(job->name, text),
                           .account = NAME(job->account, (char[]){"default"}),
                           .stage = NAME(job->stage, (char[]){"other"}),
                           .queue = (char[]){"default"},
                           .priority = job->priority,
                           .nodes_min = job->nodes,
                           .nodes_max = job->nodes,
                           .gpus_per_node = job->gpus,
                           .has_train = job->has_train,
                           .train = {.steps = job->schedule.steps},
                           .checkpoint = {.keep = 3},
                           .restart_max = 3,
                           .min_runtime_ms = UINT64_MAX,
                           .time_limit_ms = (uint64_t)job->limit_ms};
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = index + 1};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = text,
                                        .workdir = "/",
                                        .user = NAME(job->user, "user"),
                                        .key = text,
                                        .request_hash = text};
    job->submitted_ms = job->waits_ms = f->now_ms;
    fleet_input(f, &in);
}

static void submit_followers(struct fleet *f, size_t index)
{
    for (size_t i = 0; i < f->job_count; i++) {
        if (f->jobs[i].after == index + 1) {
            fleet_after(f, 0, submit, i, 0);
        }
    }
}

static void drop(struct fleet *f, size_t index);

/* Jobs that will never be submitted, because the one before it did not complete. */
static void drop_followers(struct fleet *f, size_t index)
{
    for (size_t i = 0; i < f->job_count; i++) {
        if (f->jobs[i].after == index + 1 && !is_dropped(&f->jobs[i])) {
            drop(f, i);
        }
    }
}

static void drop(struct fleet *f, size_t index)
{
    f->jobs_left--;
    f->jobs[index].state = JOB_CANCELLED;
    drop_followers(f, index);
}

/* ---- the coordinator */
static int commit(void *context, struct core *core, int64_t now_ms, struct err *err)
{
    struct fleet *f = context;
    TRY(audit_commit(&f->result->audit, core, err));
    if (f->store != NULL) {
        TRY(store_mem_commit(f->store, core, now_ms, err));
    }
    const struct change_list *list = core_changes(core, TABLE_JOB);
    for (size_t i = 0; i < change_count(list); i++) {
        const struct job_row *row = change_row(list, i);
        struct fleet_job *job = &f->jobs[strtoull(row->spec, NULL, 10)];
        bool is_final =
            row->state == JOB_COMPLETED || row->state == JOB_FAILED || row->state == JOB_CANCELLED;
        job->state = row->state;
        if (row->started_ms != ROW_NONE && job->started_ms < 0) {
            job->started_ms = row->started_ms - FLEET_EPOCH_MS;
        }
        if (is_final && job->ended_ms < 0) {
            size_t index = (size_t)(job - f->jobs);
            job->ended_ms = f->now_ms;
            if (row->state == JOB_COMPLETED && job->has_train) {
                job->useful_ms = job->schedule.useful_ms;
            }
            f->jobs_left--;
            f->jobs_waiting--;
            fleet_trace(f, "job %" PRIu64 " (%s) is %s", row->id, row->name,
                        job_state_names[row->state]);
            if (row->state == JOB_COMPLETED) {
                submit_followers(f, index);
            } else {
                drop_followers(f, index);
            }
        }
    }
    return 0;
}
static const struct store_ops ops = {commit};

static void acknowledge(struct fleet *f, uint64_t ckpt_and_kind, uint64_t session, void *payload)
{
    (void)payload;
    if (fleet_node_of(f, session) != NULL) {
        struct input in = {.session = session};
        in.kind = ckpt_and_kind % 2 == 0 ? INPUT_CKPT_PUBLISHED : INPUT_CKPT_REMOVED;
        in.u.ckpt.ckpt = ckpt_and_kind / 2;
        in.u.ckpt.ok = true;
        fleet_input(f, &in);
    }
}

static void replied(struct fleet *f, const struct effect *effect)
{
    uint64_t token = effect->u.reply.token;
    if (token == 0 || token > f->job_count) {
        return;
    }
    struct fleet_job *job = &f->jobs[token - 1];
    if (job->id != 0) {
        return; /* asked again, and answered */
    }
    if (effect->u.reply.code != 0) {
        free(job->refused);
        job->refused = mem_strdup(effect->u.reply.text);
        f->jobs_left--;
        drop_followers(f, token - 1);
    } else {
        job->id = effect->u.reply.id;
        f->jobs_waiting++;
    }
}

static void release(void *world, const struct effect *effect)
{
    struct fleet *f = world;
    struct fnode *node = fleet_node_of(f, effect->session);
    switch (effect->kind) {
    case EFFECT_REPLY:
        replied(f, effect);
        break;
    case EFFECT_ATTEMPT_START:
        if (node != NULL) {
            node_order_start(f, node, &effect->u.start);
        }
        break;
    case EFFECT_ATTEMPT_STOP:
        if (node != NULL) {
            node_order_stop(f, node, effect->u.stop.job, effect->u.stop.epoch,
                            (int64_t)effect->u.stop.grace_ms);
        }
        break;
    case EFFECT_ATTEMPT_FORGET:
        if (node != NULL) {
            node_forget(f, node, effect->u.stop.job, effect->u.stop.epoch);
        }
        break;
    case EFFECT_CKPT_PUBLISH:
    case EFFECT_CKPT_REMOVE:
        fleet_after(f, 100, acknowledge,
                    effect->u.ckpt.ckpt * 2 + (effect->kind == EFFECT_CKPT_REMOVE),
                    effect->session);
        break;
    default:
        break;
    }
}
static const struct effect_sink sink = {release};

/* ---- life */
static void connect_node(struct fleet *f, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    node_connect(f, &f->nodes[index]);
}

static void cancel_all(struct fleet *f, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    if (f->core == NULL) {
        fleet_after(f, ASKS_AGAIN_MS, cancel_all, 0, 0);
        return;
    }
    for (size_t i = 0; i < f->job_count; i++) {
        struct fleet_job *job = &f->jobs[i];
        if (job->submitted_ms < 0 && job->after == 0 && !is_dropped(job)) {
            drop(f, i);
        }
        if (job->submitted_ms >= 0 && job->id == 0 && job->refused == NULL) {
            fleet_after(f, 1, cancel_all, 0, 0); /* its answer is on its way */
        }
        if (job->id == 0 || job->ended_ms >= 0) {
            continue;
        }
        struct fgang *gang = f->gang_of_job[i] != 0 ? gang_of(f, f->gang_of_job[i] - 1) : NULL;
        if (gang != NULL) {
            gang_halt(f, gang);
            gang_tell(f, gang, gang->halted_ms);
            job->useful_ms = gang->halted_ms;
        }
        struct input in = {.kind = INPUT_JOB_CANCEL};
        in.u.job.job = job->id;
        in.u.job.user = "horizon";
        fleet_input(f, &in);
    }
}

static bool may_crash(const struct fleet_setup *setup)
{
    bool may = false;
    for (size_t i = 0; i < setup->fault_count; i++) {
        may |= setup->faults[i].kind == FAULT_COORDINATOR;
    }
    return may;
}

static void start_coordinator(struct fleet *f)
{
    f->core = core_create(&f->setup->core);
    if (f->store != NULL) {
        struct err err = {0};
        if (store_mem_load(f->store, f->core, FLEET_EPOCH_MS + f->now_ms, &err) != 0 &&
            f->err.code == 0) {
            f->err = err;
        }
    } else {
        struct core_counters counters = {
            .term = 1, .now_ms = FLEET_EPOCH_MS, .next_job = 1, .next_ckpt = 1};
        core_load_counters(f->core, &counters);
        price_add(f->core, "*", 0, f->setup->micro_usd_per_gpu_hour);
        core_load_done(f->core);
    }
    f->pump = pump_create(f->core, &ops, f, &sink, f);
}

static void come_back(struct fleet *f, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    start_coordinator(f);
    fleet_trace(f, "the coordinator is back, term %" PRIu64, core_term(f->core));
    for (uint32_t i = 0; i < f->setup->nodes; i++) {
        fleet_after(f, rng_between(&f->rng, 0, f->setup->core.heartbeat_ms), connect_node, i, 0);
    }
    for (size_t i = 0; i < f->job_count; i++) { /* whoever was not answered asks again */
        struct fleet_job *job = &f->jobs[i];
        if (job->submitted_ms >= 0 && job->id == 0 && job->refused == NULL) {
            fleet_after(f, 0, submit, i, 0);
        }
    }
}

void fleet_crash(struct fleet *f, int64_t away_ms)
{
    if (f->core == NULL) {
        return;
    }
    fleet_trace(f, "the coordinator dies");
    pump_destroy(f->pump);
    core_destroy(f->core);
    f->pump = NULL;
    f->core = NULL;
    for (uint32_t i = 0; i < f->setup->nodes; i++) {
        f->nodes[i].session = 0;
    }
    fleet_after(f, away_ms, come_back, 0, 0);
}

static void begin(struct fleet *f)
{
    if (may_crash(f->setup)) {
        f->store = store_mem_create();
        store_mem_set_price(f->store, "*", 0, f->setup->micro_usd_per_gpu_hour);
    }
    start_coordinator(f);
    f->nodes = mem_alloc_array(f->setup->nodes, sizeof *f->nodes);
    f->gang_of_job = mem_alloc_array(f->job_count + 1, sizeof *f->gang_of_job);
    int digits = snprintf(NULL, 0, "%u", f->setup->nodes);
    for (uint32_t i = 0; i < f->setup->nodes; i++) {
        snprintf(f->nodes[i].name, sizeof f->nodes[i].name, "n%0*u", digits, i + 1);
        f->nodes[i].up = true;
        f->nodes[i].broken_gpu = -1;
        fleet_after(f, 0, connect_node, i, 0);
    }
    for (size_t i = 0; i < f->job_count; i++) {
        struct fleet_job *job = &f->jobs[i];
        job->submitted_ms = job->started_ms = job->ended_ms = -1;
        if (job->after == 0) {
            fleet_after(f, job->submit_ms, submit, i, 0);
        }
    }
    if (f->setup->horizon_ms > 0) {
        fleet_after(f, f->setup->horizon_ms, cancel_all, 0, 0);
    }
    faults_begin(f);
}

static int stuck(struct fleet *f, struct err *err)
{
    for (size_t i = 0; i < f->job_count; i++) {
        const struct fleet_job *job = &f->jobs[i];
        if (job->ended_ms < 0 && job->id != 0) {
            char code[64] = "", why[512] = "";
            if (f->core != NULL) {
                core_why(f->core, job->id, code, sizeof code, why, sizeof why);
            }
            return err_set(err, ERR_AGAIN, "job %" PRIu64 " never ends: it is %s%s%s", job->id,
                           job_state_names[job->state], why[0] != 0 ? ": " : "", why);
        }
    }
    return err_set(err, ERR_AGAIN, "%zu jobs were never submitted", f->jobs_left);
}

static int turn(struct fleet *f, struct err *err)
{
    struct heap_event event;
    while (heap_next_ms(&f->heap) <= f->now_ms && heap_take(&f->heap, &event)) {
        ((fleet_fn)event.fn)(f, event.a, event.b, event.payload);
    }
    if (f->err.code != 0) {
        *err = f->err;
        return err->code;
    }
    if (f->core == NULL) {
        return 0;
    }
    if (core_deadline(f->core) <= FLEET_EPOCH_MS + f->now_ms) {
        node_heartbeats(f);
        struct input in = {.kind = INPUT_TICK, .now_ms = FLEET_EPOCH_MS + f->now_ms};
        f->result->inputs++;
        pump_input(f->pump, &in);
    }
    return pump_flush(f->pump, err);
}

/* Jobs wait, nothing runs, and that for a month: nobody will ever start them. */
static bool is_stuck(struct fleet *f)
{
    if (f->gangs_alive > 0 || f->jobs_waiting == 0) {
        f->moved_ms = f->now_ms;
    }
    return f->now_ms - f->moved_ms > STUCK_MS;
}

static int run(struct fleet *f, struct err *err)
{
    while (f->jobs_left > 0) {
        int64_t next_ms = heap_next_ms(&f->heap);
        int64_t deadline_ms = f->core != NULL ? core_deadline(f->core) : INT64_MAX;
        if (deadline_ms != INT64_MAX && deadline_ms - FLEET_EPOCH_MS < next_ms) {
            next_ms = deadline_ms - FLEET_EPOCH_MS;
        }
        if (next_ms == INT64_MAX || is_stuck(f)) {
            return stuck(f, err);
        }
        f->now_ms = next_ms > f->now_ms ? next_ms : f->now_ms;
        TRY(turn(f, err));
    }
    return 0;
}

int fleet_run(struct fleet_setup *setup, struct fleet_job *jobs, size_t count,
              struct fleet_result *result, struct err *err)
{
    *result = (struct fleet_result){0};
    struct fleet f = {.setup = setup,
                      .jobs = jobs,
                      .job_count = count,
                      .jobs_left = count,
                      .result = result,
                      .rng = setup->seed};
    begin(&f);
    int rc = run(&f, err);
    result->end_ms = f.now_ms;
    const char *problem = f.core != NULL ? core_check(f.core) : NULL;
    if (rc == 0 && problem != NULL) {
        rc = err_set(err, ERR_CORRUPT, "%s", problem);
    }
    if (rc == 0) {
        rc = audit_close(&result->audit, FLEET_EPOCH_MS + f.now_ms, err);
    }
    uint64_t head;
    memcpy(&head, result->audit.head, sizeof head);
    fleet_note(&f, head, (uint64_t)result->audit.ledger_rows);
    if (f.core != NULL) {
        pump_destroy(f.pump);
        core_destroy(f.core);
    }
    store_mem_destroy(f.store);
    for (size_t i = 0; i < f.gang_count; i++) {
        if (f.gangs[i] != NULL) {
            free(f.gangs[i]->parts);
            free(f.gangs[i]);
        }
    }
    for (uint32_t i = 0; i < setup->nodes; i++) {
        free(f.nodes[i].parts);
    }
    free(f.gangs);
    free(f.nodes);
    free(f.gang_of_job);
    heap_fini(&f.heap);
    return rc;
}

void fleet_result_fini(struct fleet_result *result)
{
    audit_fini(&result->audit);
    free(result->spans);
    *result = (struct fleet_result){0};
}

void fleet_jobs_free(struct fleet_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(jobs[i].name);
        free(jobs[i].user);
        free(jobs[i].account);
        free(jobs[i].stage);
        free(jobs[i].refused);
    }
    free(jobs);
}
