#include "daemon/core/sched_limit.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/share.h"
#include "lib/hash.h"
#include "lib/mem.h"

static bool is_each(const char *text)
{
    return text != NULL && text[0] == '*' && text[1] == 0;
}

static uint64_t use_hash(const struct quota *quota, const struct job *job)
{
    uint64_t hash = quota->row.id;
    if (is_each(quota->row.user)) {
        hash = hash_xxh3(job->row.user, strlen(job->row.user) + 1, hash);
    }
    if (is_each(quota->row.account)) {
        hash = hash_xxh3(job->row.account, strlen(job->row.account) + 1, hash ^ 1);
    }
    return hash != 0 ? hash : 1;
}

static int64_t used(const struct limits *limits, uint64_t hash)
{
    uintptr_t at = (uintptr_t)map_get(&limits->index, hash);
    return at != 0 ? limits->uses[at - 1].nodes : 0;
}

static void add_use(struct limits *limits, uint64_t hash, int64_t nodes)
{
    uintptr_t at = (uintptr_t)map_get(&limits->index, hash);
    if (at == 0) {
        void *uses = limits->uses;
        mem_grow(&uses, &limits->use_capacity, limits->use_count + 1, sizeof *limits->uses);
        limits->uses = uses;
        limits->uses[limits->use_count] = (struct quota_use){.hash = hash};
        at = ++limits->use_count;
        map_set(&limits->index, hash, (void *)at);
    }
    limits->uses[at - 1].nodes += nodes;
}

static void add_quotas(struct limits *limits, const struct core *core, const struct job *job,
                       int64_t nodes)
{
    for (size_t i = 0; i < core->quota_count; i++) {
        const struct quota *quota = core->quotas[i];
        if (!share_quota_is_over(core, quota) && share_quota_covers(core, quota, job)) {
            add_use(limits, use_hash(quota, job), nodes);
        }
    }
}

void limits_init(struct limits *limits, struct core *core)
{
    *limits = (struct limits){0};
    for (size_t i = 0; i < core->queue_kinds; i++) {
        core->queues[i]->planned_jobs = core->queues[i]->planned_nodes = 0;
    }
    for (size_t i = 0; i < core->lane_count; i++) {
        core->lanes[i]->planned_jobs = core->lanes[i]->planned_nodes = 0;
    }
    for (size_t i = 0; i < core->account_count; i++) {
        core->accounts[i]->planned_nodes = 0;
    }
    for (size_t i = 0; core->quota_count > 0 && i < core->running_count; i++) {
        add_quotas(limits, core, core->running[i], core->running[i]->attempt->node_count);
    }
}

void limits_fini(struct limits *limits)
{
    free(limits->uses);
    map_fini(&limits->index);
    *limits = (struct limits){0};
}

/* Lowers *allowed to what this limit leaves. */
static void lower(int64_t *allowed, int64_t limit, int64_t in_use, const struct job *job,
                  enum wait_code this_code, uint64_t this_who, enum wait_code *code, uint64_t *who)
{
    if (limit == ROW_NONE || *allowed < job->row.nodes_min) {
        return;
    }
    int64_t left = limit > in_use ? limit - in_use : 0;
    *allowed = left < *allowed ? left : *allowed;
    if (*allowed < job->row.nodes_min) {
        *code = this_code;
        *who = this_who;
    }
}

int64_t limits_allow(const struct limits *limits, const struct core *core, const struct job *job,
                     enum wait_code *code, uint64_t *who)
{
    const struct queue *q = job->queue;
    const struct lane *lane = job->lane;
    const struct account *account = job->member->account;
    const struct array *array = job->array;
    int64_t allowed = job->row.nodes_max;
    *code = WAIT_NONE;
    *who = 0;
    if (!q->row.starts) {
        *code = WAIT_QUEUE_STOPPED;
        return 0;
    }
#ifndef MUTANT_array_unlimited
    if (array != NULL && job->row.array_limit > 0 &&
        array->running + array->planned >= job->row.array_limit) {
        *code = WAIT_ARRAY;
        return 0;
    }
#endif
    if (q->row.jobs_max != ROW_NONE && q->jobs + q->planned_jobs >= q->row.jobs_max) {
        *code = WAIT_QUEUE_LIMIT;
        return 0;
    }
    if (q->row.user_jobs_max != ROW_NONE &&
        lane->jobs + lane->planned_jobs >= q->row.user_jobs_max) {
        *code = WAIT_USER_LIMIT;
        return 0;
    }
#ifndef MUTANT_limit_ignored
    lower(&allowed, q->row.nodes_max, (int64_t)q->nodes + q->planned_nodes, job, WAIT_QUEUE_LIMIT,
          0, code, who);
#endif
    lower(&allowed, q->row.user_nodes_max, (int64_t)lane->nodes + lane->planned_nodes, job,
          WAIT_USER_LIMIT, 0, code, who);
    lower(&allowed, account->row.nodes_max, (int64_t)account->nodes + account->planned_nodes, job,
          WAIT_ACCOUNT_LIMIT, 0, code, who);
#ifdef MUTANT_quota_ignored
    return allowed;
#endif
    for (size_t i = 0; i < core->quota_count; i++) {
        const struct quota *quota = core->quotas[i];
        if (!share_quota_is_over(core, quota) && share_quota_covers(core, quota, job)) {
            lower(&allowed, quota->row.nodes, used(limits, use_hash(quota, job)), job, WAIT_QUOTA,
                  quota->row.id, code, who);
        }
    }
    return allowed;
}

void limits_take(struct limits *limits, struct core *core, struct job *job, uint32_t nodes)
{
    job->queue->planned_jobs++;
    job->queue->planned_nodes += nodes;
    job->lane->planned_jobs++;
    job->lane->planned_nodes += nodes;
    job->member->account->planned_nodes += nodes;
    if (job->array != NULL) {
        job->array->planned++;
    }
    add_quotas(limits, core, job, nodes);
}
