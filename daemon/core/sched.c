#include "daemon/core/sched.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/node.h"
#include "daemon/core/sched_claim.h"
#include "daemon/core/sched_limit.h"
#include "daemon/core/sched_order.h"
#include "daemon/core/sched_place.h"
#include "daemon/core/sched_preempt.h"
#include "daemon/core/topology.h"
#include "lib/mem.h"

/* Blocked jobs for which no start can be planned at all: so many are tried in a pass. */
#define HOPELESS_MAX 16
/* Demands that did not fit in this pass. What fits only shrinks, so more of the same does not
 * either. */
#define FAILURES_MAX       32
#define PROBE_RESERVATIONS 256u
/* Jobs that are put in order at a time. */
#define CHUNK 1024u

struct failure {
    uint32_t gpus, nodes;
    int64_t length_ms;
    bool takes_spares;
};
struct pass {
    struct core *core;
    struct sched_plan *plan; /* borrowed */
    struct timeline tl;
    struct limits limits;
    uint32_t reservations, reserved; /* to be made, made */
    uint32_t hopeless;
    bool is_probe;                 /* nothing comes of it */
    uint64_t blocker;              /* the first job with a reservation */
    uint32_t *candidates, *chosen; /* owned; of node_count items */
    struct failure failures[FAILURES_MAX];
    uint32_t failure_count;
};

void sched_plan_fini(struct sched_plan *plan)
{
    free(plan->starts);
    free(plan->nodes);
    free(plan->victims);
    *plan = (struct sched_plan){0};
}

/* ---------------------------------------------------------------- what happened to a job */

static void set_wait(const struct core *core, struct job *job, enum wait_code code, uint64_t who,
                     int64_t start_ms)
{
    free(job->wait.nodes);
    job->wait =
        (struct wait){.code = code, .who = who, .start_ms = start_ms, .pass_ms = core->now_ms};
}

static void remember_nodes(struct job *job, const struct timeline *tl, const uint32_t *chosen,
                           uint32_t count)
{
    job->wait.nodes = mem_alloc_array(count, sizeof *job->wait.nodes);
    job->wait.node_count = count;
    for (uint32_t k = 0; k < count; k++) {
        job->wait.nodes[k] = tl->nodes[chosen[k]].node;
    }
}

/* ---------------------------------------------------------------- start now */

static bool has_failed(const struct pass *pass, const struct demand *d)
{
    for (uint32_t i = 0; i < pass->failure_count; i++) {
        const struct failure *f = &pass->failures[i];
        if (f->gpus <= d->gpus && (f->gpus > 0) == (d->gpus > 0) && f->nodes <= d->nodes &&
            f->length_ms <= d->length_ms && f->takes_spares >= d->takes_spares) {
            return true;
        }
    }
    return false;
}

static void remember_failure(struct pass *pass, const struct demand *d)
{
    const struct core *core = pass->core;
    /* A reservation may admit one and not another, a spare belongs to one: no two are alike then.
     */
    if (core->reservation_count > 0 || d->job->row.spares > 0) {
        return;
    }
    struct failure f = {d->gpus, d->nodes, d->length_ms, d->takes_spares};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pass->failure_count; i++) {
        const struct failure *old = &pass->failures[i];
        bool implied = f.gpus <= old->gpus && f.nodes <= old->nodes &&
                       f.length_ms <= old->length_ms && f.takes_spares >= old->takes_spares;
        if (!implied) {
            pass->failures[kept++] = *old;
        }
    }
    pass->failure_count = kept;
    if (kept < FAILURES_MAX) {
        pass->failures[pass->failure_count++] = f;
    }
}

static void plan_node(struct sched_plan *plan, struct node *node)
{
    void *nodes = plan->nodes;
    mem_grow(&nodes, &plan->node_capacity, plan->node_count + 1, sizeof *plan->nodes);
    plan->nodes = nodes;
    plan->nodes[plan->node_count++] = node;
}

/* Whole empty nodes to keep beside the gang, as many as there are; those it has count. */
static uint32_t plan_spares(struct pass *pass, const struct demand *d)
{
    struct timeline *tl = &pass->tl;
    uint32_t wanted = (uint32_t)d->job->row.spares, got = 0;
    if (wanted == 0) {
        return 0;
    }
    for (int own = 1; own >= 0; own--) {
        for (uint32_t i = 0; i < tl->node_count && got < wanted; i++) {
            struct tl_node *n = &tl->nodes[i];
            bool is_own = n->spare_job == d->job->row.id;
            if (is_own != (own == 1) || n->free != n->capacity ||
                !timeline_fits(tl, i, d, tl->core->now_ms)) {
                continue;
            }
            struct demand all = *d;
            all.gpus = n->capacity;
            timeline_take(tl, i, &all, tl->core->now_ms);
            n->spare_job = d->job->row.id;
            plan_node(pass->plan, n->node);
            got++;
        }
    }
    return got;
}

static void start_on(struct pass *pass, const struct demand *d, uint32_t count)
{
    struct sched_plan *plan = pass->plan;
    void *starts = plan->starts;
    mem_grow(&starts, &plan->start_capacity, plan->start_count + 1, sizeof *plan->starts);
    plan->starts = starts;
    struct job *job = core_job(pass->core, d->job->row.id);
    job = job != NULL ? job : (struct job *)(uintptr_t)d->job; /* a probe is in no list */
    struct sched_start *start = &plan->starts[plan->start_count++];
    *start = (struct sched_start){.job = job, .first = plan->node_count, .node_count = count};
    for (uint32_t k = 0; k < count; k++) {
        timeline_take(&pass->tl, pass->chosen[k], d, pass->core->now_ms);
        pass->tl.nodes[pass->chosen[k]].spare_job = 0;
        plan_node(plan, pass->tl.nodes[pass->chosen[k]].node);
    }
    start->spare_count = plan_spares(pass, d);
    limits_take(&pass->limits, pass->core, job, count);
    set_wait(pass->core, job, WAIT_NONE, 0, pass->core->now_ms);
}

static bool try_start(struct pass *pass, const struct demand *d, int64_t allowed)
{
    if (d->gpus > 0 && timeline_free_nodes(&pass->tl, d->gpus) < d->nodes) {
        return false;
    }
    if (has_failed(pass, d)) {
        return false;
    }
    uint32_t count = timeline_candidates(&pass->tl, d, pass->core->now_ms, pass->candidates);
    if (count < d->nodes) {
        remember_failure(pass, d);
        return false;
    }
    uint32_t most = sched_most(&pass->tl, d, pass->candidates, count);
    most = most < allowed ? most : (uint32_t)allowed;
    if (most < d->nodes || !sched_choose(&pass->tl, d, pass->candidates, count, most,
                                         pass->core->now_ms, pass->chosen)) {
        return false;
    }
    start_on(pass, d, most);
    return true;
}

/* ---------------------------------------------------------------- start later */

/* The first blocked job keeps its place until it starts, and what it was told is remembered. */
static void promise(struct pass *pass, struct job *job, int64_t at_ms)
{
    if (pass->reserved == 0 && !pass->is_probe && job->row.promised_ms == ROW_NONE) {
        job->row.promised_ms = at_ms;
        core_mark(pass->core, TABLE_JOB, &job->row);
    }
}

static void reserve(struct pass *pass, struct job *job, const struct demand *d)
{
    struct timeline *tl = &pass->tl;
    int64_t at_ms;
    if (pass->reserved == 0 && sched_preempt(tl, d, pass->plan, &at_ms)) {
        pass->plan->preemptor = job;
        pass->reserved++;
        pass->blocker = job->row.id;
        set_wait(pass->core, job, WAIT_PREEMPTION, 0, at_ms);
        return;
    }
    int64_t horizon_ms = pass->core->now_ms + pass->core->config.policy.backfill.horizon_ms;
    at_ms = timeline_earliest(tl, d, horizon_ms);
    set_wait(pass->core, job, WAIT_RESOURCES, 0, at_ms);
    if (at_ms == TIME_NEVER) {
        pass->hopeless++;
        return;
    }
    uint32_t count = timeline_candidates(tl, d, at_ms, pass->candidates);
    if (!sched_choose(tl, d, pass->candidates, count, d->nodes, at_ms, pass->chosen)) {
        pass->hopeless++;
        return;
    }
    for (uint32_t k = 0; k < d->nodes; k++) {
#ifndef MUTANT_backfill_delays
        timeline_take(tl, pass->chosen[k], d, at_ms);
#endif
    }
    remember_nodes(job, tl, pass->chosen, d->nodes);
    promise(pass, job, at_ms);
    pass->blocker = pass->reserved == 0 ? job->row.id : pass->blocker;
    pass->reserved++;
}

/* ---------------------------------------------------------------- the pass */

static void pass_init(struct pass *pass, struct core *core, struct sched_plan *plan)
{
    *pass = (struct pass){
        .core = core, .plan = plan, .reservations = core->config.policy.backfill.reservations};
    plan->again_ms = TIME_NEVER;
    sched_claim_prune(core);
    timeline_init(&pass->tl, core);
    plan->again_ms = pass->tl.settle_ms;
    limits_init(&pass->limits, core);
    pass->candidates = mem_alloc_array(core->node_count, sizeof *pass->candidates);
    pass->chosen = mem_alloc_array(core->node_count, sizeof *pass->chosen);
}

static void pass_fini(struct pass *pass)
{
    for (size_t i = 0; i < pass->plan->start_count; i++) {
        if (pass->plan->starts[i].job->array != NULL) {
            pass->plan->starts[i].job->array->planned = 0;
        }
    }
    timeline_fini(&pass->tl);
    limits_fini(&pass->limits);
    free(pass->candidates);
    free(pass->chosen);
}

/* may_reserve: it is among the first. */
static void look_at(struct pass *pass, struct job *job, bool may_reserve)
{
    enum wait_code code;
    uint64_t who;
    int64_t allowed = limits_allow(&pass->limits, pass->core, job, &code, &who);
    if (allowed < job->row.nodes_min) {
        set_wait(pass->core, job, code, who, TIME_NEVER);
        return;
    }
    struct demand d = demand_of(pass->core, job);
    if (try_start(pass, &d, allowed)) {
        return;
    }
    if ((may_reserve || job->row.promised_ms != ROW_NONE) && pass->hopeless < HOPELESS_MAX) {
        reserve(pass, job, &d);
    } else {
        set_wait(pass->core, job, WAIT_PRIORITY, pass->blocker, TIME_NEVER);
    }
}

static bool nothing_is_free(const struct pass *pass)
{
    if (pass->tl.avail_count > 0) {
        return false;
    }
    for (uint32_t i = 0; i < pass->tl.node_count; i++) {
        if (pass->tl.nodes[i].hosts > 0) {
            return !pass->core->has_hosted;
        }
    }
    return true;
}

/* Who goes before one that was promised a start: one that lost a node, and a higher priority until
 * the promise is overdue. */
static bool may_pass(const struct core *core, const struct ranked *r, const struct ranked *promised)
{
    return sched_goes_on(core, r->job) ||
           (r->base > promised->base && !sched_is_overdue(core, promised->job));
}

/* The list's first `sorted` are in order: the promised one comes before those of them that may not
 * pass it. */
static void put_promised_first(const struct core *core, struct ranked *list, size_t count,
                               size_t sorted)
{
    size_t from = 0;
    while (from < count && !list[from].is_promised) {
        from++;
    }
    if (from == count) {
        return;
    }
    struct ranked promised = list[from], *behind = mem_alloc_array(from + 1, sizeof *behind);
    size_t ahead = 0, kept = 0;
    for (size_t i = 0; i < from; i++) {
        if (i < sorted && may_pass(core, &list[i], &promised)) {
            list[ahead++] = list[i];
        } else {
            behind[kept++] = list[i];
        }
    }
    list[ahead] = promised;
    memcpy(list + ahead + 1, behind, kept * sizeof *behind);
    free(behind);
}

/* The first of the list, in order, and those with a promise, until all reservations are made or it
 * is through. Returns how many were looked at. */
static size_t look_at_front(struct pass *pass, struct ranked *list, size_t count, size_t sorted)
{
    size_t at = 0;
    while (at < count && (pass->reserved < pass->reservations || list[at].is_promised)) {
        if (at == sorted) {
            sched_take_first(list + at, count - at, CHUNK, sched_compare_score);
            sorted += CHUNK;
        }
        look_at(pass, list[at++].job, true);
    }
    return at;
}

/* Sorting stops where nothing is free any more, and so does the pass. */
static void fill_holes(struct pass *pass, struct ranked *list, size_t count)
{
    sched_compare *order = pass->core->config.policy.backfill.shortest_first ? sched_compare_holes
                                                                             : sched_compare_score;
    for (size_t at = 0; at < count && !nothing_is_free(pass); at++) {
        if (at % CHUNK == 0) {
            sched_take_first(list + at, count - at, CHUNK, order);
        }
        look_at(pass, list[at].job, false);
    }
}

/* The front of the last whole order, as far as it still waits. */
static struct ranked *front(const struct core *core, uint32_t depth, size_t *count)
{
    struct ranked *list = mem_alloc_array(depth, sizeof *list);
    *count = 0;
    for (size_t i = 0; i < core->order_count && *count < depth; i++) {
        struct job *job = core_job(core, core->order[i]);
        if (job != NULL && job->queued) {
            list[*count] = sched_ranked(core, job, sched_cluster_gpus(core));
            list[*count].score = -(int64_t)*count; /* stays in this order */
            ++*count;
        }
    }
    return list;
}

static void remember_order(struct core *core, const struct ranked *list, size_t count)
{
    void *order = core->order;
    mem_grow(&order, &core->order_capacity, count, sizeof *core->order);
    core->order = order;
    core->order_count = count;
    for (size_t i = 0; i < count; i++) {
        core->order[i] = list[i].id;
    }
}

void sched_pass(struct core *core, bool whole, uint32_t depth, struct sched_plan *plan)
{
    size_t count = core->queue_count, sorted;
    struct ranked *list = whole ? sched_list(core) : front(core, depth, &count);
    if (whole) {
        sorted = CHUNK < count ? CHUNK : count;
        sched_take_first(list, count, sorted, sched_compare_score);
        put_promised_first(core, list, count, sorted);
        remember_order(core, list, sorted);
        if (count > depth) {
            sched_take_first(list, count, depth, sched_compare_score);
            put_promised_first(core, list, count, depth);
            count = sorted = depth;
        }
    } else {
        sorted = count;
    }
    struct pass pass;
    pass_init(&pass, core, plan);
    size_t done = look_at_front(&pass, list, count, sorted);
    core->blocker = pass.blocker;
    fill_holes(&pass, list + done, count - done);
    pass_fini(&pass);
    free(list);
}

void sched_probe(struct core *core, struct job *job, struct sched_plan *plan)
{
    struct ranked *list = sched_list(core);
    struct pass pass;
    pass_init(&pass, core, plan);
    pass.reservations = PROBE_RESERVATIONS;
    pass.is_probe = true;
    struct ranked probe = sched_ranked(core, job, sched_cluster_gpus(core));
    size_t ahead = 0;
    for (size_t i = 0; i < core->queue_count; i++) {
        if (sched_compare_score(&list[i], &probe) < 0) {
            list[ahead++] = list[i];
        }
    }
    qsort(list, ahead, sizeof *list, sched_compare_score);
    put_promised_first(core, list, ahead, ahead);
    for (size_t i = 0; i < ahead; i++) {
        look_at(&pass, list[i].job, pass.reserved < pass.reservations);
    }
    core->blocker = pass.blocker;
    look_at(&pass, job, true);
    pass_fini(&pass);
    free(list);
}

/* ---------------------------------------------------------------- at submit */

/* Nodes with so many accelerators, of the place of that kind that has most. */
static uint32_t most_in_a_place(const struct core *core, int64_t gpus_per_node,
                                enum placement placement)
{
    uint32_t *have = mem_alloc_array(core->place_count + 1, sizeof *have);
    uint32_t most = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        const struct node *node = core->nodes[i];
        if (node_capacity(node) >= gpus_per_node) {
            uint32_t count = ++have[node->place[placement]];
            most = count > most ? count : most;
        }
    }
    free(have);
    return most;
}

bool sched_can_ever_fit(struct core *core, uint32_t nodes, int64_t gpus_per_node,
                        enum placement placement, uint32_t *large_enough)
{
    if (gpus_per_node < 0 || gpus_per_node > NODE_GPUS_MAX) {
        *large_enough = 0;
        return false;
    }
    struct fit_cache *known = &core->fits[placement][gpus_per_node];
    if (known->version != core->nodes_version) {
        *known = (struct fit_cache){.version = core->nodes_version,
                                    .all = most_in_a_place(core, gpus_per_node, PLACEMENT_ANY),
                                    .most = most_in_a_place(core, gpus_per_node, placement)};
    }
    uint32_t spares = gpus_per_node > 0 ? core->config.policy.spares : 0;
    uint32_t left = known->all > spares ? known->all - spares : 0; /* the rest is kept free */
    *large_enough = known->most < left ? known->most : left;
    return core->node_count == 0 || *large_enough >= nodes;
}

void sched_job_came(struct core *core, struct job *job)
{
    core->has_hosted |= job->row.gpus_per_node == 0;
    core->sched_due = true;
}

void sched_job_left(struct core *core, struct job *job)
{
    (void)job;
    core->sched_due |= !core->carrying_out;
}
