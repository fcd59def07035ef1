#include "daemon/core/sched_order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/sched_claim.h"
#include "daemon/core/share.h"
#include "lib/mem.h"

/* Shorter jobs than this are all short. */
#define SHORT_MS 60000

int64_t sched_base_priority(const struct job *job)
{
    return job->row.priority + job->queue->row.priority;
}

/* 1 for nothing used, 1/2 for just one's share, towards 0. */
static double factor_of(double used, double total, double share)
{
    if (used <= 0 || total <= 0) {
        return 1;
    }
    return share > 0 ? exp2(-(used / total) / share) : 0;
}

void sched_share_out(struct core *core)
{
    double total = 0, shares = 0;
    for (size_t i = 0; i < core->account_count; i++) {
        core->accounts[i]->used = 0;
        core->accounts[i]->active = 0;
    }
    for (size_t i = 0; i < core->member_count; i++) {
        struct member *m = core->members[i];
        m->used = share_used(core, m);
        m->account->used += m->used;
        m->account->active++;
        total += m->used;
    }
    for (size_t i = 0; i < core->account_count; i++) {
        const struct account *a = core->accounts[i];
        shares += a->active > 0 ? (double)a->row.shares : 0;
    }
    for (size_t i = 0; i < core->member_count; i++) {
        struct member *m = core->members[i];
        const struct account *a = m->account;
        double of_account =
            factor_of(a->used, total, shares > 0 ? (double)a->row.shares / shares : 0);
        double of_user = factor_of(m->used, a->used, 1.0 / a->active);
        m->factor = (of_account + of_user) / 2;
    }
}

double sched_cluster_gpus(const struct core *core)
{
    return core->gpu_count > 0 ? (double)core->gpu_count : 1;
}

/* Since when the job waits: for its first start, or to go on. */
static int64_t waits_since_ms(const struct job *job)
{
    const struct attempt *attempt = job->attempt;
    int64_t since_ms =
        job->row.eligible_ms != ROW_NONE ? job->row.eligible_ms : job->row.submitted_ms;
    bool has_run = attempt != NULL && attempt->row.ended_ms != ROW_NONE;
    return has_run && attempt->row.ended_ms > since_ms ? attempt->row.ended_ms : since_ms;
}

static int64_t length_ms(const struct core *core, const struct job *job)
{
    int64_t left_ms = job->row.time_limit_ms - job->row.ran_ms;
    return job->row.time_limit_ms == 0 ? core->config.policy.assumed_runtime_ms
           : left_ms > 0               ? left_ms
                                       : 0;
}

bool sched_is_overdue(const struct core *core, const struct job *job)
{
    const struct policy *p = &core->config.policy;
    int64_t most_ms =
        p->backfill.overtaken_ms + p->backfill.overtaken_lengths * length_ms(core, job);
    return p->backfill.overtaken_ms > 0 && core->now_ms - waits_since_ms(job) >= most_ms;
}

static double fraction(int64_t part, int64_t whole)
{
    return part <= 0 || whole <= 0 ? 0 : part < whole ? (double)part / (double)whole : 1;
}

bool sched_goes_on(const struct core *core, const struct job *job)
{
    return job->row.restart_first || sched_claim_until_ms(core, job) > 0;
}

int64_t sched_score(const struct core *core, const struct job *job, double cluster_gpus)
{
    const struct policy *p = &core->config.policy;
    int64_t waited_ms = core->now_ms - waits_since_ms(job);
    if (sched_is_overdue(core, job)) {
        return INT64_MAX / 2 - waits_since_ms(job);
    }
    double points = (double)p->priority.age *
                    fraction(core->now_ms - job->row.eligible_ms, p->priority.age_full_ms);
    points += (double)p->priority.fair_share * job->member->factor;
    points += (double)p->priority.slowdown *
              fraction(waited_ms, waited_ms + length_ms(core, job) + SHORT_MS);
    if (p->priority.size > 0) {
        double part = (double)(job->row.nodes_min * job->row.gpus_per_node) / cluster_gpus;
        points += (double)p->priority.size * (part < 1 ? part : 1);
    }
    if (sched_goes_on(core, job)) {
        points += (double)p->priority.restart;
    }
    return sched_base_priority(job) * 1000 + (int64_t)(points * 1000);
}

struct ranked sched_ranked(const struct core *core, struct job *job, double cluster_gpus)
{
    const struct job_row *row = &job->row;
    return (struct ranked){
        .score = sched_score(core, job, cluster_gpus),
        .id = row->id,
        .base = sched_base_priority(job),
        .length_ms = row->time_limit_ms > 0 ? row->time_limit_ms - row->ran_ms : INT64_MAX,
        .is_promised = row->promised_ms != ROW_NONE,
        .job = job,
    };
}

struct ranked *sched_list(struct core *core)
{
    struct ranked *list = mem_alloc_array(core->queue_count, sizeof *list);
    double gpus = sched_cluster_gpus(core);
    sched_share_out(core);
    for (size_t i = 0; i < core->queue_count; i++) {
        list[i] = sched_ranked(core, core->queue[i], gpus);
    }
    return list;
}

int sched_compare_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

int sched_compare_holes(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->base != y->base) {
        return x->base > y->base ? -1 : 1;
    }
    if (x->length_ms != y->length_ms) {
        return x->length_ms < y->length_ms ? -1 : 1;
    }
    return sched_compare_score(a, b);
}

static void swap(struct ranked *a, struct ranked *b)
{
    struct ranked c = *a;
    *a = *b;
    *b = c;
}

/* The middle one of three is put at the front. They are taken from scattered places: jobs that left
 * have made runs of the queue, and with places fixed, these can be made to split off one job at a
 * time. */
static void choose_pivot(struct ranked *list, size_t count, sched_compare *compare)
{
    struct ranked *three[3];
    uint64_t x = count;
    for (size_t i = 0; i < 3; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        three[i] = &list[(x >> 33) % count];
    }
    if (compare(three[1], three[0]) < 0) {
        swap(three[1], three[0]);
    }
    if (compare(three[2], three[1]) < 0) {
        swap(three[2], three[1]);
    }
    if (compare(three[1], three[0]) < 0) {
        swap(three[1], three[0]);
    }
    swap(three[1], &list[0]);
}

void sched_take_first(struct ranked *list, size_t count, size_t k, sched_compare *compare)
{
    k = k < count ? k : count;
    size_t low = 0, high = count; /* the border lies between these */
    while (high - low > 32 && low < k && k < high) {
        choose_pivot(list + low, high - low, compare);
        size_t border = low; /* the pivot is at low; what comes before it up to border */
        for (size_t i = low + 1; i < high; i++) {
            if (compare(&list[i], &list[low]) < 0) {
                swap(&list[++border], &list[i]);
            }
        }
        swap(&list[low], &list[border]);
        if (border >= k) {
            high = border;
        } else {
            low = border + 1;
        }
    }
    size_t end = k < high && low < k ? high : k; /* a small rest is sorted along */
    qsort(list, end, sizeof *list, compare);
}
