#include "daemon/core/share.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

/* ---------------------------------------------------------------- sorted lists */

/* The place of a name, or where it would go. All objects begin with their row, whose texts `first`
 * and `second` are at these offsets. */
struct key {
    const char *first, *second;
};

static int compare(struct key a, struct key b)
{
    int order = strcmp(a.first, b.first);
    return order != 0 || a.second == NULL ? order : strcmp(a.second, b.second);
}

typedef struct key key_of(const void *object);

static size_t place_of(void *const *items, size_t count, key_of *key, struct key wanted)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(key(items[middle]), wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void *find(void *const *items, size_t count, key_of *key, struct key wanted)
{
    size_t at = place_of(items, count, key, wanted);
    return at < count && compare(key(items[at]), wanted) == 0 ? items[at] : NULL;
}

static void *insert(void *items, size_t *count, size_t *capacity, key_of *key, void *object)
{
    size_t at = place_of(items, *count, key, key(object));
    mem_grow(&items, capacity, *count + 1, sizeof(void *));
    void **list = items;
    memmove(list + at + 1, list + at, (*count - at) * sizeof *list);
    list[at] = object;
    ++*count;
    return items;
}

static struct key queue_key(const void *object)
{
    return (struct key){((const struct queue *)object)->row.name, NULL};
}

static struct key account_key(const void *object)
{
    return (struct key){((const struct account *)object)->row.name, NULL};
}

static struct key member_key(const void *object)
{
    const struct member *member = object;
    return (struct key){member->row.account, member->row.user};
}

static struct key lane_key(const void *object)
{
    const struct lane *lane = object;
    return (struct key){lane->queue->row.name, lane->user};
}

struct queue *share_queue(const struct core *core, const char *name)
{
    return find((void *const *)core->queues, core->queue_kinds, queue_key,
                (struct key){name, NULL});
}

struct account *share_account(const struct core *core, const char *name)
{
    return find((void *const *)core->accounts, core->account_count, account_key,
                (struct key){name, NULL});
}

void share_load_queue(struct core *core, const struct queue_row *row)
{
    struct queue *queue = mem_alloc(sizeof *queue);
    queue->row = *row;
    core->queues =
        insert(core->queues, &core->queue_kinds, &core->queues_capacity, queue_key, queue);
}

void share_load_account(struct core *core, const struct account_row *row)
{
    struct account *account = mem_alloc(sizeof *account);
    account->row = *row;
    core->accounts = insert(core->accounts, &core->account_count, &core->accounts_capacity,
                            account_key, account);
}

static struct queue *make_queue(struct core *core, const struct queue_row *like, const char *name)
{
    struct queue_row row = *like;
    row.name = mem_strdup(name);
    row.by_user = NULL;
    row.changed_ms = core->now_ms;
    share_load_queue(core, &row);
    struct queue *queue = share_queue(core, name);
    core_mark(core, TABLE_QUEUE, &queue->row);
    return queue;
}

static struct account *make_account(struct core *core, const struct account_row *like,
                                    const char *name)
{
    struct account_row row = *like;
    row.name = mem_strdup(name);
    row.by_user = NULL;
    row.changed_ms = core->now_ms;
    share_load_account(core, &row);
    struct account *account = share_account(core, name);
    core_mark(core, TABLE_ACCOUNT, &account->row);
    return account;
}

struct queue *share_queue_make(struct core *core, const char *name)
{
    struct queue *queue = share_queue(core, name);
    struct queue_row row = policy_queue_default();
    return queue != NULL ? queue : make_queue(core, &row, name);
}

struct account *share_account_make(struct core *core, const char *name)
{
    struct account *account = share_account(core, name);
    struct account_row row = policy_account_default();
    return account != NULL ? account : make_account(core, &row, name);
}

static struct member *add_member(struct core *core, const struct fair_usage_row *row)
{
    struct member *member = mem_alloc(sizeof *member);
    member->row = *row;
    member->account = share_account_make(core, row->account);
    core->members =
        insert(core->members, &core->member_count, &core->members_capacity, member_key, member);
    return member;
}

void share_load_member(struct core *core, const struct fair_usage_row *row)
{
    add_member(core, row);
}

struct member *share_find_member(const struct core *core, const char *account, const char *user)
{
    return find((void *const *)core->members, core->member_count, member_key,
                (struct key){account, user});
}

struct lane *share_find_lane(const struct core *core, const struct queue *queue, const char *user)
{
    return find((void *const *)core->lanes, core->lane_count, lane_key,
                (struct key){queue->row.name, user});
}

struct member *share_member(struct core *core, const char *account, const char *user)
{
    struct member *member = share_find_member(core, account, user);
    if (member == NULL) {
        struct fair_usage_row row = {.at_ms = core->now_ms};
        row_set_text(&row.account, account);
        row_set_text(&row.user, user);
        member = add_member(core, &row);
        core_mark(core, TABLE_FAIR_USAGE, &member->row);
    }
    return member;
}

struct lane *share_lane(struct core *core, struct queue *queue, const char *user)
{
    struct lane *lane = share_find_lane(core, queue, user);
    if (lane == NULL) {
        lane = mem_alloc(sizeof *lane);
        lane->queue = queue;
        lane->user = mem_strdup(user);
        core->lanes = insert(core->lanes, &core->lane_count, &core->lanes_capacity, lane_key, lane);
    }
    return lane;
}

void share_load_quota(struct core *core, const struct quota_row *row)
{
    struct quota *quota = mem_alloc(sizeof *quota);
    quota->row = *row;
    void *quotas = core->quotas;
    mem_grow(&quotas, &core->quotas_capacity, core->quota_count + 1, sizeof *core->quotas);
    core->quotas = quotas;
    core->quotas[core->quota_count++] = quota;
}

void share_fini(struct core *core)
{
    for (size_t i = 0; i < core->lane_count; i++) {
        free(core->lanes[i]->user);
        free(core->lanes[i]);
    }
    for (size_t i = 0; i < core->member_count; i++) {
        row_fini(&tables[TABLE_FAIR_USAGE], &core->members[i]->row);
        free(core->members[i]);
    }
    for (size_t i = 0; i < core->account_count; i++) {
        row_fini(&tables[TABLE_ACCOUNT], &core->accounts[i]->row);
        free(core->accounts[i]);
    }
    for (size_t i = 0; i < core->queue_kinds; i++) {
        row_fini(&tables[TABLE_QUEUE], &core->queues[i]->row);
        free(core->queues[i]);
    }
    for (size_t i = 0; i < core->quota_count; i++) {
        row_fini(&tables[TABLE_QUOTA], &core->quotas[i]->row);
        free(core->quotas[i]);
    }
    free(core->lanes);
    free(core->members);
    free(core->accounts);
    free(core->queues);
    free(core->quotas);
}

/* ---------------------------------------------------------------- policy */

static bool same_queue(const struct queue_row *a, const struct queue_row *b)
{
    return a->priority == b->priority && a->weight_milli == b->weight_milli &&
           a->nodes_max == b->nodes_max && a->jobs_max == b->jobs_max &&
           a->user_nodes_max == b->user_nodes_max && a->user_jobs_max == b->user_jobs_max &&
           a->waiting_max == b->waiting_max && a->priority_max == b->priority_max &&
           a->time_limit_ms == b->time_limit_ms && a->preempts == b->preempts &&
           a->preemptible == b->preemptible && a->accepts == b->accepts && a->starts == b->starts;
}

/* Everything but the key and who changed it. */
static void copy_queue(struct queue_row *to, const struct queue_row *from)
{
    struct queue_row row = *from;
    row.dirty = to->dirty;
    row.name = to->name;
    row.by_user = to->by_user;
    row.changed_ms = to->changed_ms;
    *to = row;
}

static void apply_queue(struct core *core, const struct queue_row *wanted)
{
    struct queue *queue = share_queue(core, wanted->name);
    if (queue == NULL) {
        make_queue(core, wanted, wanted->name);
    } else if (queue->row.by_user == NULL && !same_queue(&queue->row, wanted)) {
        copy_queue(&queue->row, wanted);
        queue->row.changed_ms = core->now_ms;
        core_mark(core, TABLE_QUEUE, &queue->row);
    }
}

static void apply_account(struct core *core, const struct account_row *wanted)
{
    struct account *account = share_account(core, wanted->name);
    if (account == NULL) {
        make_account(core, wanted, wanted->name);
        return;
    }
    struct account_row *row = &account->row;
    bool same = row->shares == wanted->shares && row->nodes_max == wanted->nodes_max &&
                row->accepts == wanted->accepts;
    if (row->by_user == NULL && !same) {
        row->shares = wanted->shares;
        row->nodes_max = wanted->nodes_max;
        row->accepts = wanted->accepts;
        row->changed_ms = core->now_ms;
        core_mark(core, TABLE_ACCOUNT, row);
    }
}

bool share_queues_are_given(const struct core *core)
{
    bool given = core->config.policy.queue_count > 0;
    for (size_t i = 0; i < core->queue_kinds; i++) {
        given |= core->queues[i]->row.by_user != NULL;
    }
    return given;
}

void share_apply_policy(struct core *core)
{
    const struct policy *policy = &core->config.policy;
    for (size_t i = 0; i < policy->queue_count; i++) {
        apply_queue(core, &policy->queues[i]);
    }
    for (size_t i = 0; i < policy->account_count; i++) {
        apply_account(core, &policy->accounts[i]);
    }
    share_queue_make(core, "default");
}

/* ---------------------------------------------------------------- use */

static double faded(double value, double rate, double ms, double half_life_ms)
{
#ifdef MUTANT_share_kept
    half_life_ms *= 1000;
#endif
    double left = exp2(-ms / half_life_ms);
    return value * left + rate * half_life_ms / M_LN2 * (1 - left);
}

double share_used(const struct core *core, const struct member *member)
{
    double ms = (double)(core->now_ms - member->row.at_ms);
    return faded(member->row.gpu_ms, (double)member->rate_milli / 1000, ms > 0 ? ms : 0,
                 (double)core->config.policy.priority.half_life_ms);
}

double core_used_gpu_ms(const struct core *core, const char *account, const char *user)
{
    const struct member *member = share_find_member(core, account, user);
    return member != NULL ? share_used(core, member) : 0;
}

/* Brings the row up to now: before every change of the rate. */
static void settle(struct core *core, struct member *member)
{
    member->row.gpu_ms = share_used(core, member);
    member->row.at_ms = core->now_ms;
#ifndef MUTANT_mark_missed
    core_mark(core, TABLE_FAIR_USAGE, &member->row);
#endif
}

static int64_t rate_of(const struct job *job)
{
    return (int64_t)job->attempt->node_count * job->row.gpus_per_node *
           job->queue->row.weight_milli;
}

void share_bind(struct core *core, struct job *job)
{
    job->queue = share_queue_make(core, job->row.queue);
    job->member = share_member(core, job->row.account, job->row.user);
    job->lane = share_lane(core, job->queue, job->row.user);
    job->queue->waiting++;
}

void share_unbind(struct core *core, struct job *job)
{
    (void)core;
    assert(!job->counted);
    job->queue->waiting--;
}

void share_count(struct core *core, struct job *job)
{
    assert(!job->counted);
    uint32_t nodes = job->attempt->node_count;
    job->counted = true;
    job->queue->waiting--;
    job->queue->jobs++;
    job->queue->nodes += nodes;
    job->lane->jobs++;
    job->lane->nodes += nodes;
    job->member->account->nodes += nodes;
    job->member->rate_milli += rate_of(job);
    if (job->array != NULL) {
        job->array->running++;
    }
    void *running = core->running;
    mem_grow(&running, &core->running_capacity, core->running_count + 1, sizeof *core->running);
    core->running = running;
    job->running_at = core->running_count;
    core->running[core->running_count++] = job;
}

void share_started(struct core *core, struct job *job)
{
    settle(core, job->member);
    share_count(core, job);
}

void share_stopped(struct core *core, struct job *job)
{
    assert(job->counted);
    uint32_t nodes = job->attempt->node_count;
    settle(core, job->member);
    job->counted = false;
    job->queue->waiting++;
    job->queue->jobs--;
    job->queue->nodes -= nodes;
    job->lane->jobs--;
    job->lane->nodes -= nodes;
    job->member->account->nodes -= nodes;
    job->member->rate_milli -= rate_of(job);
    if (job->array != NULL) {
        job->array->running--;
    }
    struct job *last = core->running[--core->running_count];
    core->running[job->running_at] = last;
    last->running_at = job->running_at;
}

void share_reweigh(struct core *core, struct queue *queue, int64_t weight_milli)
{
    for (size_t i = 0; i < core->running_count; i++) {
        struct job *job = core->running[i];
        if (job->queue == queue) {
            settle(core, job->member);
            job->member->rate_milli -= rate_of(job);
        }
    }
    queue->row.weight_milli = weight_milli;
    for (size_t i = 0; i < core->running_count; i++) {
        struct job *job = core->running[i];
        job->member->rate_milli += job->queue == queue ? rate_of(job) : 0;
    }
}

/* ---------------------------------------------------------------- quotas */

bool share_quota_is_over(const struct core *core, const struct quota *quota)
{
    return quota->row.expires_ms != ROW_NONE && quota->row.expires_ms <= core->now_ms;
}

static bool is_each(const char *text)
{
    return text != NULL && strcmp(text, "*") == 0;
}

static bool matches(const char *wanted, const char *text)
{
    return wanted == NULL || is_each(wanted) || strcmp(wanted, text) == 0;
}

bool share_quota_covers(const struct core *core, const struct quota *quota, const struct job *job)
{
    const struct policy_class *class = policy_class_of(&core->config.policy, job->row.priority);
    return matches(quota->row.user, job->row.user) &&
           matches(quota->row.account, job->row.account) &&
           (quota->row.class == NULL ||
            (class != NULL && strcmp(class->name, quota->row.class) == 0));
}

int64_t share_quota_used(const struct core *core, const struct quota *quota, const struct job *job)
{
    int64_t nodes = 0;
    for (size_t i = 0; i < core->running_count; i++) {
        const struct job *other = core->running[i];
        bool same =
            (!is_each(quota->row.user) || strcmp(other->row.user, job->row.user) == 0) &&
            (!is_each(quota->row.account) || strcmp(other->row.account, job->row.account) == 0);
        if (same && share_quota_covers(core, quota, other)) {
            nodes += other->attempt->node_count;
        }
    }
    return nodes;
}
