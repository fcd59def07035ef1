#include "daemon/core/core.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/guard.h"
#include "daemon/core/job.h"
#include "daemon/core/job_change.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/ledger.h"
#include "daemon/core/load.h"
#include "daemon/core/node.h"
#include "daemon/core/price.h"
#include "daemon/core/progress.h"
#include "daemon/core/register.h"
#include "daemon/core/reservation.h"
#include "daemon/core/sched.h"
#include "daemon/core/share.h"
#include "daemon/core/state.h"
#include "daemon/core/submit.h"
#include "daemon/core/topology.h"
#include "lib/hash.h"
#include "lib/mem.h"

void core_config_default(struct core_config *c)
{
    *c = (struct core_config){
        .cluster = "ds",
        .checkpoint_dir = "/var/lib/ds/checkpoints",
        .heartbeat_ms = 5000,
        .lease_ms = 30000,
        .recovering_ms = 45000,
        .stop_grace_ms = 10000,
        .user_fault_ms = 600000,
        .backoff_first_ms = 10000,
        .backoff_max_ms = 600000,
    };
    policy_default(&c->policy);
}

struct core *core_create(const struct core_config *config)
{
    struct core *core = mem_alloc(sizeof *core);
    core->config = *config;
    core->next_job = 1;
    core->next_ckpt = 1;
    core->nodes_version = 1;
    return core;
}

void core_destroy(struct core *core)
{
    if (core == NULL) {
        return;
    }
    core_committed(core);
    while (core->job_first != NULL) {
        struct job *next = core->job_first->next;
        job_destroy(core->job_first);
        core->job_first = next;
    }
    while (core->ckpt_first != NULL) {
        struct ckpt *next = core->ckpt_first->next;
        ckpt_destroy(core->ckpt_first);
        core->ckpt_first = next;
    }
    for (size_t i = 0; i < core->gpu_count; i++) {
        row_fini(&tables[TABLE_GPU], &core->gpus[i]->row);
        free(core->gpus[i]);
    }
    for (size_t i = 0; i < core->node_count; i++) {
        row_fini(&tables[TABLE_NODE], &core->nodes[i]->row);
        free(core->nodes[i]->gpus);
        free(core->nodes[i]->leftovers);
        free(core->nodes[i]);
    }
    reservation_fini(core);
    share_fini(core);
    topology_fini(core);
    job_wait_fini(core);
    for (size_t i = 0; i < core->price_count; i++) {
        row_fini(&tables[TABLE_PRICE], &core->prices[i]->row);
        free(core->prices[i]);
    }
    for (int i = 0; i < TABLE_COUNT; i++) {
        free(core->changes[i].rows);
    }
    free(core->gpus);
    free(core->nodes);
    free(core->prices);
    free(core->queue);
    free(core->running);
    free(core->order);
    free(core->claims);
    free(core->garbage);
    map_fini(&core->jobs);
    map_fini(&core->ckpts);
    map_fini(&core->sessions);
    map_fini(&core->node_names);
    keys_fini(&core->keys);
    timers_fini(&core->timers);
    effect_list_fini(&core->effects);
    free(core);
}

/* ---------------------------------------------------------------- changes */

static void add_change(struct core *core, enum table_id table, void *row)
{
    struct change_list *list = &core->changes[table];
    void *rows = list->rows;
    mem_grow(&rows, &list->capacity, list->count + 1, sizeof *list->rows);
    list->rows = rows;
    list->rows[list->count++] = row;
    core->changed = true;
}

void core_mark(struct core *core, enum table_id table, void *row)
{
    bool *dirty = row; /* every row begins with it */
    if (!*dirty) {
        *dirty = true;
        add_change(core, table, row);
    }
}

void *core_append(struct core *core, enum table_id table)
{
    assert(tables[table].use != ROW_KEPT);
    void *row = mem_alloc(tables[table].row_bytes);
    add_change(core, table, row);
    return row;
}

void core_discard(struct core *core, void (*destroy)(void *object), void *object)
{
    void *garbage = core->garbage;
    mem_grow(&garbage, &core->garbage_capacity, core->garbage_count + 1, sizeof *core->garbage);
    core->garbage = garbage;
    core->garbage[core->garbage_count++] = (struct garbage){destroy, object};
}

bool core_has_changes(const struct core *core)
{
    return core->changed;
}

const struct change_list *core_changes(const struct core *core, enum table_id table)
{
    return &core->changes[table];
}

void core_committed(struct core *core)
{
    for (int t = 0; t < TABLE_COUNT; t++) {
        struct change_list *list = &core->changes[t];
        for (size_t i = 0; i < list->count; i++) {
            *(bool *)list->rows[i] = false;
            if (tables[t].use != ROW_KEPT) {
                row_fini(&tables[t], list->rows[i]);
                free(list->rows[i]);
            }
        }
        list->count = 0;
    }
    core->changed = false;
    for (size_t i = 0; i < core->garbage_count; i++) {
        core->garbage[i].destroy(core->garbage[i].object);
    }
    core->garbage_count = 0;
}

/* ---------------------------------------------------------------- lookups */

const char *core_job_spec(const struct core *core, uint64_t id, const char **model_json)
{
    const struct job *job = core_job(core, id);
    *model_json = job != NULL ? job->row.model_json : NULL;
    return job != NULL ? job->row.spec : NULL;
}

struct job *core_job(const struct core *core, uint64_t id)
{
    return map_get(&core->jobs, id);
}

struct ckpt *core_ckpt(const struct core *core, uint64_t id)
{
    return map_get(&core->ckpts, id);
}

struct node *core_node(const struct core *core, uint64_t id)
{
    return id >= 1 && id <= core->node_count ? core->nodes[id - 1] : NULL;
}

struct gpu *core_gpu(const struct core *core, uint64_t id)
{
    return id >= 1 && id <= core->gpu_count ? core->gpus[id - 1] : NULL;
}

static uint64_t name_hash(const char *name)
{
    uint64_t hash = hash_xxh3(name, strlen(name), 0);
    return hash != 0 ? hash : 1;
}

struct node *core_node_by_name(const struct core *core, const char *name)
{
    struct node *node = map_get(&core->node_names, name_hash(name));
    if (node == NULL || strcmp(node->row.name, name) == 0) {
        return node;
    }
    for (size_t i = 0; i < core->node_count; i++) { /* two names of one hash */
        if (strcmp(core->nodes[i]->row.name, name) == 0) {
            return core->nodes[i];
        }
    }
    return NULL;
}

void core_node_index(struct core *core, struct node *node)
{
    uint64_t hash = name_hash(node->row.name);
    if (map_get(&core->node_names, hash) == NULL) {
        map_set(&core->node_names, hash, node);
    }
}

struct node *core_node_of_session(const struct core *core, session_id session)
{
    return map_get(&core->sessions, session);
}

session_id core_session_of_node(const struct core *core, uint64_t node_id)
{
    const struct node *node = core_node(core, node_id);
    return node != NULL ? node->session : 0;
}

int64_t core_seen_ms(const struct core *core, uint64_t node_id)
{
    const struct node *node = core_node(core, node_id);
    return node != NULL ? node->seen_ms : 0;
}

bool core_epoch_is_live(const struct core *core, uint64_t job_id, uint64_t epoch)
{
    const struct job *job = core_job(core, job_id);
    const struct attempt *attempt = job != NULL ? job->attempt : NULL;
    return attempt != NULL && attempt->row.epoch == epoch && attempt->row.state != ATTEMPT_ENDED &&
           attempt->row.failing_ms == ROW_NONE;
}

uint64_t core_term(const struct core *core)
{
    return core->term;
}

int64_t core_now_ms(const struct core *core)
{
    return core->now_ms;
}

int64_t core_scheduled_ms(const struct core *core)
{
    return core->scheduled_ms;
}

uint64_t core_last_event(const struct core *core)
{
    return core->event_seq;
}

/* ---------------------------------------------------------------- out */

void core_reply(struct core *core, const struct input *in, int code, const char *fmt, ...)
{
    if (in->token == 0) {
        return;
    }
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *copy = effect_list_text(&core->effects, text);
    struct effect *reply = effect_list_add(&core->effects, EFFECT_REPLY, 0);
    reply->u.reply.token = in->token;
    reply->u.reply.code = code;
    reply->u.reply.text = copy;
}

void core_reply_id(struct core *core, const struct input *in, uint64_t id)
{
    if (in->token != 0) {
        struct effect *reply = effect_list_add(&core->effects, EFFECT_REPLY, 0);
        reply->u.reply.token = in->token;
        reply->u.reply.id = id;
        reply->u.reply.text = "";
    }
}

void core_event(struct core *core, const char *kind, uint64_t job, uint64_t epoch, uint64_t node,
                const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct event_row *row = core_append(core, TABLE_EVENT);
    row->seq = ++core->event_seq;
#ifdef MUTANT_event_hole
    row->seq = core->event_seq += core->event_seq % 100 == 0;
#endif
    row->at_ms = core->now_ms;
    row->job_id = job;
    row->epoch = epoch;
    row->node_id = node;
    row_set_text(&row->kind, kind);
    row_set_text(&row->text, text);
    struct effect *effect = effect_list_add(&core->effects, EFFECT_EVENT, 0);
    effect->u.event.seq = row->seq;
    effect->u.event.job = job;
}

/* ---------------------------------------------------------------- the door */

#define NODES_PER_PASS_MS 1000 /* a pass over so many nodes at most every ms */
#define JOBS_PER_PASS_MS  200  /* and over so many jobs */
#define QUICK_PASS_DEPTH  256
/* While jobs wait: ages, estimates of what has no time limit and the like change by themselves. */
#define PASS_AGAIN_MS 300000

int64_t core_deadline(const struct core *core)
{
    return timers_next(&core->timers);
}

/* A tick that comes much too late means that this process stood still, not that the nodes were
 * silent: what they sent lies unread in the sockets. They get a full lease. */
static void forgive(struct core *core)
{
    for (size_t i = 0; i < core->node_count; i++) {
        struct node *node = core->nodes[i];
        if (node->watched && node->lease_ms < core->now_ms + core->config.lease_ms) {
            node->lease_ms = core->now_ms + core->config.lease_ms;
        }
    }
}

static void tick(struct core *core)
{
    if (core->now_ms - 2 * core->config.heartbeat_ms > core_deadline(core)) {
        forgive(core);
    }
    struct timer timer;
    while (timers_take(&core->timers, core->now_ms, &timer)) {
        switch (timer.kind) {
        case TIMER_PRICE:
            meter_reprice(core);
            break;
        case TIMER_NODE:
            node_timer(core, timer.id);
            break;
        case TIMER_JOB:
            job_timer(core, timer.id);
            break;
        case TIMER_CKPT:
            ckpt_timer(core, timer.id);
            break;
        case TIMER_QUOTA:
            share_quota_timer(core, timer.id);
            break;
        case TIMER_RESERVATION:
            reservation_timer(core, timer.id);
            break;
        case TIMER_SCHED:
            core->sched_due = true;
            break;
        }
    }
}

static void set_alarm(struct core *core, int64_t at_ms)
{
    if (core->alarm_ms <= core->now_ms || at_ms < core->alarm_ms) {
        core->alarm_ms = at_ms;
        timers_set(&core->timers, TIMER_SCHED, 0, at_ms);
    }
}

static void carry_out(struct core *core, const struct sched_plan *plan)
{
    core->carrying_out = true;
    for (size_t i = 0; i < plan->start_count; i++) {
        const struct sched_start *start = &plan->starts[i];
        struct node **nodes = plan->nodes + start->first;
        for (uint32_t k = 0; k < start->node_count + start->spare_count; k++) {
            node_set_spare(core, nodes[k], k < start->node_count ? 0 : start->job->row.id);
        }
        attempt_start(core, start->job, nodes, start->node_count);
    }
    if (plan->preemptor != NULL && plan->victim_count > 0) {
        job_preempt(core, plan->preemptor, plan->victims, plan->victim_count);
    }
    core->carrying_out = false;
}

static void run_pass(struct core *core, bool whole)
{
    uint32_t depth = whole ? core->config.policy.backfill.depth : QUICK_PASS_DEPTH;
    struct sched_plan plan = {0};
    core->sched_due = false;
    core->scheduled_ms = core->now_ms;
    sched_pass(core, whole, depth, &plan);
    carry_out(core, &plan);
    core->pass_ms = core->now_ms + (int64_t)(core->node_count / NODES_PER_PASS_MS);
    if (whole) {
        core->whole_pass_ms = core->pass_ms + (int64_t)(core->queue_count / JOBS_PER_PASS_MS);
    }
    int64_t again_ms = core->now_ms + PASS_AGAIN_MS;
    set_alarm(core, plan.again_ms < again_ms ? plan.again_ms : again_ms);
    sched_plan_fini(&plan);
}

/* One pass for all that happened in a step, and another when what it started lets others come. With
 * many jobs or nodes passes are spaced out, so that they take a bounded part of the time; in
 * between, the front of the last order is tried. */
static void schedule(struct core *core)
{
    while (core->sched_due && core->queue_count > 0) {
        bool whole = core->now_ms >= core->whole_pass_ms;
        if (!whole) {
            set_alarm(core, core->now_ms < core->pass_ms ? core->pass_ms : core->whole_pass_ms);
        }
        if (!whole && core->now_ms < core->pass_ms) {
            return;
        }
        run_pass(core, whole);
    }
    core->sched_due = false;
}

static void dispatch(struct core *core, const struct input *in)
{
    switch (in->kind) {
    case INPUT_TICK:
        tick(core);
        break;
    case INPUT_JOB_SUBMIT:
        job_submit(core, in);
        break;
    case INPUT_JOB_CANCEL:
        job_cancel(core, in);
        break;
    case INPUT_JOB_HOLD:
        job_hold(core, in);
        break;
    case INPUT_JOB_RELEASE:
        job_release(core, in);
        break;
    case INPUT_NODE_DRAIN:
        node_drain(core, in);
        break;
    case INPUT_NODE_RESUME:
        node_resume(core, in);
        break;
    case INPUT_CKPT_VERIFIED:
        ckpt_verified(core, in);
        break;
    case INPUT_WORKER_REGISTER:
        node_register(core, in);
        break;
    case INPUT_WORKER_GONE:
        node_gone(core, in);
        break;
    case INPUT_HEARTBEAT:
        node_heartbeat(core, in);
        break;
    case INPUT_ATTEMPT_REPORT:
        attempt_report(core, in);
        break;
    case INPUT_SHARD_REPORT:
        ckpt_shard_report(core, in);
        break;
    case INPUT_STEP_REPORT:
        progress_report(core, in);
        break;
    case INPUT_CKPT_PUBLISHED:
        ckpt_published(core, in);
        break;
    case INPUT_CKPT_REMOVED:
        ckpt_removed(core, in);
        break;
    case INPUT_JOB_UPDATE:
        job_update(core, in);
        break;
    case INPUT_JOB_RESIZE:
        job_resize(core, in);
        break;
    case INPUT_JOB_SUSPEND:
        job_suspend(core, in);
        break;
    case INPUT_JOB_RESUME:
        job_resume(core, in);
        break;
    case INPUT_JOB_REQUEUE:
        job_requeue(core, in);
        break;
    case INPUT_QUEUE_SET:
        share_queue_set(core, in);
        break;
    case INPUT_ACCOUNT_SET:
        share_account_set(core, in);
        break;
    case INPUT_QUOTA_SET:
        share_quota_set(core, in);
        break;
    case INPUT_RESERVATION_CREATE:
        reservation_create(core, in);
        break;
    case INPUT_RESERVATION_CANCEL:
        reservation_cancel(core, in);
        break;
    case INPUT_GUARD_REPORT:
        guard_report(core, in);
        break;
    case INPUT_STOP_ACKED:
        attempt_stop_acked(core, in);
        break;
    }
}

void core_step(struct core *core, const struct input *in)
{
    if (in->now_ms > core->now_ms) {
        core->now_ms = in->now_ms;
    }
    struct node *node = core_node_of_session(core, in->session);
    if (node != NULL && in->kind != INPUT_WORKER_GONE) {
        node_seen(core, node);
    }
    dispatch(core, in);
    schedule(core);
}
