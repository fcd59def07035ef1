#include "daemon/core/load.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/job.h"
#include "daemon/core/node.h"
#include "daemon/core/price.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/register.h"
#include "daemon/core/reservation.h"
#include "daemon/core/sched_claim.h"
#include "daemon/core/share.h"
#include "daemon/core/state.h"
#include "daemon/core/topology.h"
#include "lib/mem.h"

size_t change_count(const struct change_list *list)
{
    return list->count;
}

void *change_row(const struct change_list *list, size_t i)
{
    return list->rows[i];
}

void core_load_counters(struct core *core, const struct core_counters *counters)
{
    core->term = counters->term;
    core->now_ms = counters->now_ms;
    core->next_job = counters->next_job;
    core->next_ckpt = counters->next_ckpt;
    core->event_seq = counters->event_seq;
    core->ledger_seq = counters->ledger_seq;
    memcpy(core->ledger_head, counters->ledger_head, sizeof core->ledger_head);
}

void core_load_key(struct core *core, const char *key, const char *request_hash, uint64_t job)
{
    keys_add(&core->keys, key, request_hash, job);
}

static int dangling(struct err *err, enum table_id table, const char *what, uint64_t id)
{
    return err_set(err, ERR_CORRUPT,
                   "database: a row of %s refers to %s %" PRIu64 ", which is not there",
                   tables[table].name, what, id);
}

static int load_price(struct core *core, struct price_row *row, struct err *err)
{
    if (row->id != core->price_count + 1) {
        return dangling(err, TABLE_PRICE, "price", core->price_count + 1);
    }
    struct price *price = mem_alloc(sizeof *price);
    price->row = *row;
    void *prices = core->prices;
    mem_grow(&prices, &core->price_capacity, core->price_count + 1, sizeof *core->prices);
    core->prices = prices;
    core->prices[core->price_count++] = price;
    return 0;
}

static int load_node(struct core *core, struct node_row *row, struct err *err)
{
    if (row->id != core->node_count + 1) {
        return dangling(err, TABLE_NODE, "node", core->node_count + 1);
    }
    struct node *node = mem_alloc(sizeof *node);
    node->row = *row;
    void *nodes = core->nodes;
    mem_grow(&nodes, &core->node_capacity, core->node_count + 1, sizeof *core->nodes);
    core->nodes = nodes;
    core->nodes[core->node_count++] = node;
    core_node_index(core, node);
    return 0;
}

static int load_gpu(struct core *core, struct gpu_row *row, struct err *err)
{
    struct node *node = core_node(core, row->node_id);
    if (node == NULL || row->id != core->gpu_count + 1) {
        return dangling(err, TABLE_GPU, "node", row->node_id);
    }
    struct gpu *gpu = mem_alloc(sizeof *gpu);
    gpu->row = *row;
    void *gpus = core->gpus;
    mem_grow(&gpus, &core->gpu_capacity, core->gpu_count + 1, sizeof *core->gpus);
    core->gpus = gpus;
    core->gpus[core->gpu_count++] = gpu;
    node_add_gpu(node, gpu);
    return 0;
}

static int load_job(struct core *core, struct job_row *row, struct err *err)
{
    (void)err;
    struct job *job = mem_alloc(sizeof *job);
    job->row = *row;
    job_insert(core, job);
    return 0;
}

static int load_attempt(struct core *core, struct attempt_row *row, struct err *err)
{
    struct job *job = core_job(core, row->job_id);
    if (job == NULL || job->attempt != NULL) {
        return dangling(err, TABLE_ATTEMPT, "job", row->job_id);
    }
    if (row->nodes < 1 || row->nodes > JOBSPEC_NODES_MAX) {
        return dangling(err, TABLE_ATTEMPT, "a number of nodes", (uint64_t)row->nodes);
    }
    job->attempt = attempt_create(job, (uint32_t)row->nodes, (uint32_t)job->row.gpus_per_node);
    job->attempt->row = *row;
    return 0;
}

static struct attempt *find_attempt(const struct core *core, uint64_t job_id, uint64_t epoch)
{
    const struct job *job = core_job(core, job_id);
    struct attempt *attempt = job != NULL ? job->attempt : NULL;
    return attempt != NULL && attempt->row.epoch == epoch ? attempt : NULL;
}

static int load_attempt_node(struct core *core, struct attempt_node_row *row, struct err *err)
{
    struct attempt *attempt = find_attempt(core, row->job_id, row->epoch);
    struct node *node = core_node(core, row->node_id);
    if (attempt == NULL || node == NULL || row->node_rank < 0 ||
        row->node_rank >= attempt->node_count) {
        return dangling(err, TABLE_ATTEMPT_NODE, "attempt or node", row->job_id);
    }
    struct attempt_node *an = &attempt->nodes[row->node_rank];
    an->row = *row;
    an->node = node;
    if (attempt_node_is_live(an)) {
        attempt_node_link(an);
    }
    return 0;
}

static int load_allocation(struct core *core, struct allocation_row *row, struct err *err)
{
    struct attempt *attempt = find_attempt(core, row->job_id, row->epoch);
    struct gpu *gpu = core_gpu(core, row->gpu_id);
    if (attempt == NULL || gpu == NULL || row->node_rank < 0 ||
        row->node_rank >= attempt->node_count || row->local_rank < 0 ||
        row->local_rank >= attempt->nodes[row->node_rank].gpu_count) {
        return dangling(err, TABLE_ALLOCATION, "attempt or gpu", row->job_id);
    }
    struct allocation *allocation = &attempt->nodes[row->node_rank].allocations[row->local_rank];
    allocation->row = *row;
    allocation->gpu = gpu;
    if (row->released_ms == ROW_NONE) {
        gpu->allocation = allocation;
    }
    return 0;
}

static int load_rank_exit(struct core *core, struct rank_exit_row *row, struct err *err)
{
    struct attempt *attempt = find_attempt(core, row->job_id, row->epoch);
    if (attempt == NULL || row->rank < 0 || row->rank >= attempt->world_size) {
        return dangling(err, TABLE_RANK_EXIT, "attempt of job", row->job_id);
    }
    attempt->exits[row->rank].row = *row;
    attempt->exits[row->rank].known = true;
    return 0;
}

static int load_checkpoint(struct core *core, struct checkpoint_row *row, struct err *err)
{
    if (row->world_size <= 0) {
        return dangling(err, TABLE_CHECKPOINT, "world size", 0);
    }
    struct ckpt *ckpt = mem_alloc(sizeof *ckpt);
    ckpt->row = *row;
    ckpt_insert(core, ckpt, core_job(core, row->job_id));
    return 0;
}

static int load_ckpt_shard(struct core *core, struct ckpt_shard_row *row, struct err *err)
{
    struct ckpt *ckpt = core_ckpt(core, row->ckpt_id);
    if (ckpt == NULL || ckpt->shards == NULL || row->rank < 0 ||
        row->rank >= ckpt->row.world_size) {
        return dangling(err, TABLE_CKPT_SHARD, "checkpoint", row->ckpt_id);
    }
    ckpt->known += !ckpt->shards[row->rank].known;
    ckpt->shards[row->rank] = (struct ckpt_shard){.row = *row, .known = true};
    return 0;
}

static int load_numbered(struct core *core, enum table_id table, const void *row, struct err *err)
{
    if (table == TABLE_QUOTA) {
        const struct quota_row *quota = row;
        if (quota->id != core->quota_count + 1) {
            return dangling(err, table, "quota", core->quota_count + 1);
        }
        share_load_quota(core, quota);
    } else {
        const struct reservation_row *reservation = row;
        if (reservation->id != core->reservation_count + 1) {
            return dangling(err, table, "reservation", core->reservation_count + 1);
        }
        reservation_load(core, reservation);
    }
    return 0;
}

void core_load_outcome(struct core *core, uint64_t job, enum job_state state, uint32_t array_size)
{
    job_outcome_set(core, job,
                    state == JOB_COMPLETED ? OUTCOME_COMPLETED
                    : state == JOB_FAILED  ? OUTCOME_FAILED
                                           : OUTCOME_CANCELLED,
                    array_size);
}

int core_load_row(struct core *core, enum table_id table, void *row, struct err *err)
{
    int rc;
    switch (table) {
    case TABLE_PRICE:
        rc = load_price(core, row, err);
        break;
    case TABLE_NODE:
        rc = load_node(core, row, err);
        break;
    case TABLE_JOB:
        rc = load_job(core, row, err);
        break;
    case TABLE_GPU:
        rc = load_gpu(core, row, err);
        break;
    case TABLE_ATTEMPT:
        rc = load_attempt(core, row, err);
        break;
    case TABLE_ATTEMPT_NODE:
        rc = load_attempt_node(core, row, err);
        break;
    case TABLE_ALLOCATION:
        rc = load_allocation(core, row, err);
        break;
    case TABLE_RANK_EXIT:
        rc = load_rank_exit(core, row, err);
        break;
    case TABLE_CHECKPOINT:
        rc = load_checkpoint(core, row, err);
        break;
    case TABLE_CKPT_SHARD:
        rc = load_ckpt_shard(core, row, err);
        break;
    case TABLE_QUEUE:
        share_load_queue(core, row);
        rc = 0;
        break;
    case TABLE_ACCOUNT:
        share_load_account(core, row);
        rc = 0;
        break;
    case TABLE_FAIR_USAGE:
        share_load_member(core, row);
        rc = 0;
        break;
    case TABLE_QUOTA:
    case TABLE_RESERVATION:
        rc = load_numbered(core, table, row, err);
        break;
    default:
        rc = err_set(err, ERR_CORRUPT, "table %s is not loaded", tables[table].name);
    }
    if (rc != 0) {
        row_fini(&tables[table], row);
    }
    return rc;
}

static void set_timers(struct core *core)
{
    for (size_t i = 0; i < core->price_count; i++) {
        int64_t at_ms = core->prices[i]->row.effective_ms;
        timers_set(&core->timers, TIMER_PRICE, 0, at_ms > core->now_ms ? at_ms : core->now_ms);
    }
    for (const struct job *job = core->job_first; job != NULL; job = job->next) {
        job_set_timers(core, job);
    }
    for (size_t i = 0; i < core->quota_count; i++) {
        const struct quota *quota = core->quotas[i];
        if (quota->row.expires_ms != ROW_NONE && !share_quota_is_over(core, quota)) {
            timers_set(&core->timers, TIMER_QUOTA, quota->row.id, quota->row.expires_ms);
        }
    }
    for (size_t i = 0; i < core->node_count; i++) {
        struct node *node = core->nodes[i];
        node->seen_ms = core->now_ms;
        node->lease_ms = core->now_ms + core->config.recovering_ms;
        node_watch(core, node);
    }
}

void core_load_done(struct core *core)
{
    price_ensure_default(core);
    share_apply_policy(core);
    for (size_t i = 0; i < core->node_count; i++) {
        node_recount(core->nodes[i]);
        topology_apply(core, core->nodes[i]);
    }
    for (struct job *job = core->job_first; job != NULL; job = job->next) {
        job_wait_bind(core, job);
        share_bind(core, job);
        if (job->attempt != NULL && job->attempt->row.state != ATTEMPT_ENDED) {
            share_count(core, job);
        }
    }
    for (struct job *job = core->job_first; job != NULL; job = job->next) {
        job_wait_load_done(core, job);
    }
    reservation_load_done(core);
    for (struct job *job = core->job_first; job != NULL; job = job->next) {
        if (job->row.state == JOB_PENDING) {
            job_enqueue(core, job);
            sched_claim_add(core, job);
        }
    }
    set_timers(core);
    core->sched_due = true;
}
