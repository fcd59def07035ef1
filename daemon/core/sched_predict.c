/* core_plan_submit and core_expected_start_ms: what the scheduler would do. They run a pass with
 * the job in its place in the order, in which everybody ahead of it gets a planned start, and carry
 * nothing out. What other jobs learnt in the last real pass is put back afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/job.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/sched.h"
#include "daemon/core/share.h"
#include "daemon/core/submit.h"
#include "daemon/core/topology.h"
#include "lib/buf.h"
#include "lib/mem.h"

/* ---------------------------------------------------------------- without a trace */

static struct wait *set_waits_aside(struct core *core)
{
    struct wait *waits = mem_alloc_array(core->queue_count, sizeof *waits);
    for (size_t i = 0; i < core->queue_count; i++) {
        waits[i] = core->queue[i]->wait;
        core->queue[i]->wait.nodes = NULL;
    }
    return waits;
}

static void put_waits_back(struct core *core, struct wait *waits)
{
    for (size_t i = 0; i < core->queue_count; i++) {
        free(core->queue[i]->wait.nodes);
        core->queue[i]->wait = waits[i];
    }
    free(waits);
}

/* The reply that a check gave, which nobody waits for. */
static void take_refusal(struct core *core, struct core_plan *plan)
{
    struct effect_list *list = &core->effects;
    const struct effect *reply = &list->items[list->count - 1];
    plan->action = PLAN_REFUSED;
    plan->code = reply->u.reply.code;
    snprintf(plan->reason, sizeof plan->reason, "refused");
    snprintf(plan->text, sizeof plan->text, "%s", reply->u.reply.text);
    list->count--;
}

/* ---------------------------------------------------------------- a job that is not there */

/* Its queue and account may not exist yet: it gets stand-ins that nobody else sees. */
struct stand_in {
    struct queue queue;
    struct account account;
    struct member member;
    struct lane lane;
};

static void bind_probe(struct core *core, struct job *job, struct stand_in *s)
{
    struct queue *queue = share_queue(core, job->row.queue);
    struct account *account = share_account(core, job->row.account);
    s->queue.row = policy_queue_default();
    s->queue.row.name = job->row.queue;
    s->account.row = policy_account_default();
    s->account.row.name = job->row.account;
    job->queue = queue != NULL ? queue : &s->queue;
    job->member = share_find_member(core, job->row.account, job->row.user);
    if (job->member == NULL) {
        s->member.account = account != NULL ? account : &s->account;
        s->member.factor = 1;
        job->member = &s->member;
    }
    job->lane = share_find_lane(core, job->queue, job->row.user);
    if (job->lane == NULL) {
        s->lane.queue = job->queue;
        s->lane.user = job->row.user;
        job->lane = &s->lane;
    }
}

static void describe_nodes(struct core_plan *plan, struct node *const *nodes, uint32_t count)
{
    size_t used = 0;
    plan->nodes = count;
    plan->leaves = topology_leaves(nodes, count);
    plan->crossings = topology_crossings(nodes, count);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = nodes[i]->row.name;
        size_t room = sizeof plan->node_names - used;
        if (strlen(name) + 16 > room) {
            snprintf(plan->node_names + used, room, " +%u", count - i);
            return;
        }
        used += (size_t)snprintf(plan->node_names + used, room, "%s%s", i > 0 ? "," : "", name);
    }
}

static void explain(struct core *core, const struct job *job, struct core_plan *plan)
{
    struct buf text = {0};
    snprintf(plan->reason, sizeof plan->reason, "%s", job_reason(core, job, &text));
    snprintf(plan->text, sizeof plan->text, "%s", buf_cstr(&text));
    buf_fini(&text);
}

static const struct sched_start *find_start(const struct sched_plan *plan, const struct job *job)
{
    for (size_t i = 0; i < plan->start_count; i++) {
        if (plan->starts[i].job == job) {
            return &plan->starts[i];
        }
    }
    return NULL;
}

/* What the pass says of the job. */
static void report(struct core *core, const struct job *job, const struct sched_plan *found,
                   struct core_plan *plan)
{
    const struct sched_start *start = find_start(found, job);
    if (start != NULL) {
        plan->action = PLAN_START;
        plan->start_ms = core->now_ms;
        describe_nodes(plan, found->nodes + start->first, start->node_count);
        snprintf(plan->text, sizeof plan->text, "starts now on %u node%s", start->node_count,
                 start->node_count == 1 ? "" : "s");
        return;
    }
    plan->start_ms = job->wait.start_ms;
    plan->behind = core->blocker != job->row.id ? core->blocker : 0;
    if (job->wait.nodes != NULL) {
        describe_nodes(plan, job->wait.nodes, job->wait.node_count);
    }
    if (found->preemptor == job && found->victim_count > 0) {
        size_t most = sizeof plan->victims / sizeof plan->victims[0];
        plan->action = PLAN_PREEMPT;
        plan->victim_count = (uint32_t)found->victim_count;
        for (size_t i = 0; i < found->victim_count && i < most; i++) {
            plan->victims[i] = found->victims[i]->row.id;
        }
        snprintf(plan->reason, sizeof plan->reason, "preemption");
        snprintf(plan->text, sizeof plan->text,
                 "%zu job%s of lower priority would be asked to save and to stop for it",
                 found->victim_count, found->victim_count == 1 ? "" : "s");
        return;
    }
    plan->action = PLAN_WAIT;
    explain(core, job, plan);
}

/* Something else than a place has to come first. */
static bool waits_for_others(struct core *core, struct job *job, const struct jobspec *spec,
                             struct core_plan *plan)
{
    char why[256];
    bool never = spec->hold;
    job->row.state = spec->hold ? JOB_HELD : JOB_PENDING;
    row_set_text(&job->row.reason_text, spec->hold ? "submitted on hold" : NULL);
    job->needs = mem_alloc_array(spec->dependency_count, sizeof *job->needs);
    if (spec->dependency_count > 0) {
        memcpy(job->needs, spec->dependencies, spec->dependency_count * sizeof *job->needs);
    }
    job->need_count = spec->dependency_count;
    if (!never && !job_wait_preview(core, job, why, sizeof why)) {
        job->row.state = JOB_HELD;
        row_set_text(&job->row.reason_text, why);
        never = true;
    }
    bool later = job->row.not_before_ms > core->now_ms;
    if (!never && job->need_count == 0 && !later) {
        return false;
    }
    plan->action = PLAN_WAIT;
    plan->start_ms = !never && job->need_count == 0 ? job->row.not_before_ms : TIME_NEVER;
    explain(core, job, plan);
    return true;
}

void core_plan_submit(struct core *core, const struct input_submit *submit, int64_t now_ms,
                      struct core_plan *plan)
{
    *plan = (struct core_plan){.start_ms = TIME_NEVER};
    core->now_ms = now_ms > core->now_ms ? now_ms : core->now_ms;
    struct input in = {.kind = INPUT_JOB_SUBMIT, .now_ms = core->now_ms, .token = UINT64_MAX};
    in.u.submit = *submit;
    int64_t limit_ms;
    if (!job_check_submit(core, &in, &limit_ms)) {
        take_refusal(core, plan);
        return;
    }
    struct job *job = job_from_spec(core, submit, core->next_job, limit_ms);
    struct stand_in stand_in = {0};
    bind_probe(core, job, &stand_in);
    job->row.eligible_ms = core->now_ms;
    uint64_t blocker = core->blocker;
    if (!waits_for_others(core, job, submit->spec, plan)) {
        struct wait *waits = set_waits_aside(core);
        struct sched_plan found = {0};
        int64_t scheduled_ms = core->scheduled_ms;
        job->queued = true;
        core->scheduled_ms = core->now_ms;
        sched_probe(core, job, &found);
        report(core, job, &found, plan);
        core->scheduled_ms = scheduled_ms;
        put_waits_back(core, waits);
        sched_plan_fini(&found);
    }
    core->blocker = blocker;
    job_destroy(job);
}

int64_t core_planned_start_ms(const struct core *core, uint64_t id)
{
    const struct job *job = core_job(core, id);
    if (job == NULL || job->row.state != JOB_PENDING) {
        return TIME_NEVER;
    }
    if (!job->queued) {
        bool later = job->need_count == 0 && job->row.not_before_ms > core->now_ms;
        return later ? job->row.not_before_ms : TIME_NEVER;
    }
    return job->wait.pass_ms > 0 ? job->wait.start_ms : TIME_NEVER;
}

int64_t core_expected_start_ms(struct core *core, uint64_t id)
{
    struct job *job = core_job(core, id);
    if (job == NULL || !job->queued) {
        bool later = job != NULL && job->row.state == JOB_PENDING && job->need_count == 0;
        return later ? job->row.not_before_ms : TIME_NEVER;
    }
    struct wait *waits = set_waits_aside(core);
    struct sched_plan found = {0};
    uint64_t blocker = core->blocker;
    sched_probe(core, job, &found);
    int64_t start_ms = find_start(&found, job) != NULL ? core->now_ms : job->wait.start_ms;
    core->blocker = blocker;
    put_waits_back(core, waits);
    sched_plan_fini(&found);
    return start_ms;
}
