#include "daemon/core/sched_preempt.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/sched_order.h"
#include "daemon/core/sched_place.h"
#include "lib/mem.h"

struct victim {
    struct job *job;
    double cost; /* accelerator-ms lost per node freed */
    int64_t save_ms;
    bool chosen;
};
struct trial {
    struct timeline *tl;
    const struct demand *d;
    const struct slot *original; /* slots as they were */
    int64_t at_ms;               /* when all victims have saved */
    bool *room;                  /* by node of the timeline */
    uint32_t *in_place;          /* nodes with room, by place */
    uint32_t best;               /* of them in one place, at least */
};

/* ---------------------------------------------------------------- who may be stopped */

static bool may_preempt(const struct core *core, const struct job *job)
{
    const struct policy *p = &core->config.policy;
    /* One that fails again and again does not take others down with it. */
    return p->preemption.enabled && job->queue->row.preempts && job->row.fruitless == 0 &&
           job->row.preempts < p->preemption.per_job;
}

static double lost_gpu_ms(const struct core *core, const struct job *job)
{
    const struct attempt *attempt = job->attempt;
    const struct ckpt *ckpt = ckpt_newest_of_epoch(job, attempt->row.epoch);
    int64_t safe_ms = ckpt != NULL ? ckpt->row.step_at_ms : attempt->row.started_ms;
    return (double)(core->now_ms - safe_ms) * attempt->node_count *
           (double)(job->row.gpus_per_node > 0 ? job->row.gpus_per_node : 1);
}

static int compare(const void *a, const void *b)
{
    const struct victim *x = a, *y = b;
    if (x->cost < y->cost || x->cost > y->cost) {
        return x->cost < y->cost ? -1 : 1;
    }
    return x->job->row.id > y->job->row.id ? -1 : x->job->row.id < y->job->row.id;
}

static struct victim *find_victims(const struct core *core, const struct job *preemptor,
                                   size_t *count, int64_t *again_ms)
{
    const struct policy *p = &core->config.policy;
    struct victim *list = mem_alloc_array(core->running_count, sizeof *list);
    *count = 0;
    for (size_t i = 0; i < core->running_count; i++) {
        struct job *job = core->running[i];
        const struct attempt *attempt = job->attempt;
        int64_t gap = sched_base_priority(preemptor) - sched_base_priority(job);
#ifdef MUTANT_preempt_any
        gap = p->preemption.priority_gap;
#endif
        if (!job->row.preemptible || attempt->row.state == ATTEMPT_STOPPING ||
            gap < p->preemption.priority_gap) {
            continue;
        }
        int64_t free_to_go_ms = attempt->row.started_ms + job->row.min_runtime_ms;
#ifdef MUTANT_preempt_early
        free_to_go_ms = 0;
#endif
        if (free_to_go_ms > core->now_ms) {
            *again_ms = free_to_go_ms < *again_ms ? free_to_go_ms : *again_ms;
            continue;
        }
        list[(*count)++] = (struct victim){.job = job,
                                           .cost = lost_gpu_ms(core, job) / attempt->node_count,
                                           .save_ms = attempt_save_ms(core, job)};
    }
    qsort(list, *count, sizeof *list, compare);
    return list;
}

/* ---------------------------------------------------------------- the trial */

static void look_again(struct trial *t, uint32_t i)
{
    uint32_t place = t->tl->nodes[i].node->place[t->d->placement];
    bool room = timeline_fits(t->tl, i, t->d, t->at_ms);
    if (room != t->room[i]) {
        t->room[i] = room;
        t->in_place[place] += room ? 1u : UINT32_MAX;
    }
    t->best = t->in_place[place] > t->best ? t->in_place[place] : t->best;
}

static bool is_enough(struct trial *t)
{
    if (t->best < t->d->nodes) {
        return false;
    }
    t->best = 0; /* it may have been more than there is now */
    for (uint32_t p = 0; p <= t->tl->core->place_count; p++) {
        t->best = t->in_place[p] > t->best ? t->in_place[p] : t->best;
    }
    return t->best >= t->d->nodes;
}

static void set_end(struct trial *t, const struct job *job, bool stopped)
{
    for (uint32_t k = 0; k < job->attempt->node_count; k++) {
        uint32_t i = t->tl->of_node[job->attempt->nodes[k].node->row.id - 1];
        if (i == SLOT_NONE) {
            continue;
        }
        for (uint32_t s = t->tl->nodes[i].first; s != SLOT_NONE; s = t->tl->slots[s].next) {
            struct slot *slot = &t->tl->slots[s];
            int64_t end_ms = t->original[s].to_ms;
            if (slot->job == job->row.id) {
                slot->to_ms = stopped && end_ms > t->at_ms ? t->at_ms : end_ms;
            }
        }
        look_again(t, i);
    }
}

static bool choose_victims(struct trial *t, struct victim *victims, size_t count)
{
    for (uint32_t i = 0; i < t->tl->node_count; i++) {
        look_again(t, i);
    }
    size_t tried = 0;
    while (!is_enough(t) && tried < count) {
        victims[tried].chosen = true;
        set_end(t, victims[tried++].job, true);
    }
    if (!is_enough(t)) {
        return false;
    }
    for (size_t k = tried; k-- > 0;) { /* the dearest first: is it needed? */
        set_end(t, victims[k].job, false);
        victims[k].chosen = !is_enough(t);
        if (victims[k].chosen) {
            set_end(t, victims[k].job, true);
        }
    }
    return true;
}

/* The gang that this makes room for; false: not in one piece after all. */
static bool choose_nodes(struct trial *t, uint32_t *chosen)
{
    uint32_t *candidates = mem_alloc_array(t->tl->node_count, sizeof *candidates);
    uint32_t count = 0;
    for (uint32_t i = 0; i < t->tl->node_count; i++) {
        candidates[count] = i;
        count += t->room[i];
    }
    bool ok = sched_choose(t->tl, t->d, candidates, count, t->d->nodes, t->at_ms, chosen);
    free(candidates);
    return ok;
}

static bool is_on(const struct timeline *tl, const struct job *job, const uint32_t *chosen,
                  uint32_t count)
{
    for (uint32_t k = 0; k < job->attempt->node_count; k++) {
        uint32_t i = tl->of_node[job->attempt->nodes[k].node->row.id - 1];
        for (uint32_t c = 0; c < count; c++) {
            if (chosen[c] == i) {
                return true;
            }
        }
    }
    return false;
}

static void add_victim(struct sched_plan *plan, struct job *job)
{
    void *victims = plan->victims;
    mem_grow(&victims, &plan->victim_capacity, plan->victim_count + 1, sizeof *plan->victims);
    plan->victims = victims;
    plan->victims[plan->victim_count++] = job;
}

static bool any_is_chosen(const struct victim *victims, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        if (victims[k].chosen) {
            return true;
        }
    }
    return false;
}

static void take(struct trial *t, struct victim *victims, size_t count, const uint32_t *chosen,
                 struct sched_plan *plan)
{
    for (size_t k = 0; k < count; k++) {
        if (!victims[k].chosen) {
            continue;
        }
        if (is_on(t->tl, victims[k].job, chosen, t->d->nodes)) {
            add_victim(plan, victims[k].job);
        } else {
            set_end(t, victims[k].job, false);
        }
    }
    for (uint32_t c = 0; c < t->d->nodes; c++) {
        timeline_take(t->tl, chosen[c], t->d, t->at_ms);
    }
}

bool sched_preempt(struct timeline *tl, const struct demand *d, struct sched_plan *plan,
                   int64_t *start_ms)
{
    const struct core *core = tl->core;
    if (!may_preempt(core, d->job)) {
        return false;
    }
    size_t count;
    struct victim *victims = find_victims(core, d->job, &count, &plan->again_ms);
    int64_t save_ms = 0;
    for (size_t k = 0; k < count; k++) {
        save_ms = victims[k].save_ms > save_ms ? victims[k].save_ms : save_ms;
    }
    if (count == 0) {
        free(victims);
        return false;
    }
    size_t slots_bytes = tl->slot_count * sizeof *tl->slots;
    struct slot *original = mem_alloc(slots_bytes > 0 ? slots_bytes : 1);
    if (slots_bytes > 0) {
        memcpy(original, tl->slots, slots_bytes);
    }
    struct trial t = {
        .tl = tl,
        .d = d,
        .original = original,
        .at_ms = core->now_ms + save_ms,
        .room = mem_alloc_array(tl->node_count, sizeof *t.room),
        .in_place = mem_alloc_array(core->place_count + 1, sizeof *t.in_place),
    };
    uint32_t *chosen = mem_alloc_array(d->nodes, sizeof *chosen);
    /* Nobody has to stop when enough comes free by itself. */
    bool ok = choose_victims(&t, victims, count) && any_is_chosen(victims, count) &&
              choose_nodes(&t, chosen);
    if (ok) {
        take(&t, victims, count, chosen, plan);
        *start_ms = t.at_ms;
    } else if (slots_bytes > 0) {
        memcpy(tl->slots, original, slots_bytes);
    }
    free(chosen);
    free(t.room);
    free(t.in_place);
    free(original);
    free(victims);
    return ok;
}
