#include "daemon/core/submit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/core/job.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/sched.h"
#include "daemon/core/share.h"
#include "lib/err.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

static void reply_with_id(struct core *core, const struct input *in, uint64_t id, bool existing)
{
    if (in->token == 0) {
        return;
    }
    struct effect *reply = effect_list_add(&core->effects, EFFECT_REPLY, 0);
    reply->u.reply.token = in->token;
    reply->u.reply.id = id;
    reply->u.reply.existing = existing;
    reply->u.reply.text = "";
}

/* ---------------------------------------------------------------- what can never be */

static void refuse(struct core *core, const struct input *in, struct jobspec_place place,
                   const char *key, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* place: file:line:column key 'k': what is wrong. */
static void refuse(struct core *core, const struct input *in, struct jobspec_place place,
                   const char *key, const char *fmt, ...)
{
    const struct input_submit *submit = &in->u.submit;
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    char *where =
        jobspec_place_text(submit->place != NULL ? submit->place : submit->spec->name, place);
    core_reply(core, in, ERR_INVALID, "%.100s: key '%s': %s", where, key, what);
    free(where);
}

static bool check_queue(struct core *core, const struct input *in, int64_t *limit_ms)
{
    const struct jobspec *spec = in->u.submit.spec;
    const struct queue *queue = share_queue(core, spec->queue);
    *limit_ms = (int64_t)spec->time_limit_ms;
    if (queue == NULL && !share_queues_are_given(core)) {
        return true;
    }
    if (queue == NULL || !queue->row.accepts) {
        refuse(core, in, spec->places.queue, "queue", "%s %s (dsctl queue list)", spec->queue,
               queue == NULL ? "does not exist" : "takes no jobs now");
        return false;
    }
    const struct queue_row *row = &queue->row;
    if (row->priority_max != ROW_NONE && spec->priority > row->priority_max) {
        refuse(core, in, spec->places.priority, "priority",
               "%" PRId64 " is over the limit of queue %s (allowed: up to %" PRId64 ")",
               spec->priority, row->name, row->priority_max);
        return false;
    }
    if (row->time_limit_ms != ROW_NONE && *limit_ms > row->time_limit_ms) {
        refuse(core, in, spec->places.time_limit, "time_limit",
               "%" PRId64 " s are over the limit of queue %s (allowed: up to %" PRId64 " s)",
               *limit_ms / 1000, row->name, row->time_limit_ms / 1000);
        return false;
    }
    if (*limit_ms == 0 && row->time_limit_ms != ROW_NONE) {
        *limit_ms = row->time_limit_ms;
    }
    int64_t most = row->nodes_max;
    if (row->user_nodes_max != ROW_NONE && (most == ROW_NONE || row->user_nodes_max < most)) {
        most = row->user_nodes_max;
    }
    if (most != ROW_NONE && spec->nodes_min > most) {
        refuse(core, in, spec->places.nodes, "nodes",
               "the job can never start: %" PRIu32 " nodes are over the limit of queue %s "
               "(allowed: up to %" PRId64 ")",
               spec->nodes_min, row->name, most);
        return false;
    }
    int64_t waiting =
        (int64_t)queue->waiting + (int64_t)(spec->array_count > 0 ? spec->array_count : 1);
    if (row->waiting_max != ROW_NONE && waiting > row->waiting_max) {
        core_reply(core, in, ERR_CONFLICT,
                   "queue %s is full: %" PRIu32 " jobs wait, at most %" PRId64
                   " may (submit it later)",
                   row->name, queue->waiting, row->waiting_max);
        return false;
    }
    return true;
}

static bool check_account(struct core *core, const struct input *in)
{
    const struct jobspec *spec = in->u.submit.spec;
    const struct account *account = share_account(core, spec->account);
    bool refused = account != NULL ? !account->row.accepts : core->config.policy.accounts_closed;
    if (refused) {
        refuse(core, in, spec->places.account, "account", "%s %s (dsctl account list)",
               spec->account, account == NULL ? "does not exist" : "takes no jobs");
        return false;
    }
    if (account != NULL && account->row.nodes_max != ROW_NONE &&
        spec->nodes_min > account->row.nodes_max) {
        refuse(core, in, spec->places.nodes, "nodes",
               "the job can never start: %" PRIu32 " nodes are over the limit of account %s "
               "(allowed: up to %" PRId64 ")",
               spec->nodes_min, spec->account, account->row.nodes_max);
        return false;
    }
    return true;
}

static bool check_quotas(struct core *core, const struct input *in)
{
    const struct input_submit *submit = &in->u.submit;
    const struct jobspec *spec = submit->spec;
    struct job job = {.row = {.user = (char *)(uintptr_t)submit->user,
                              .account = spec->account,
                              .priority = spec->priority}};
    for (size_t i = 0; i < core->quota_count; i++) {
        const struct quota *quota = core->quotas[i];
        if (quota->row.expires_ms == ROW_NONE && quota->row.nodes < spec->nodes_min &&
            share_quota_covers(core, quota, &job)) {
            refuse(core, in, spec->places.nodes, "nodes",
                   "the job can never start: %" PRIu32 " nodes are over quota %" PRIu64
                   " (allowed: up to %" PRId64 "; dsctl quota list)",
                   spec->nodes_min, quota->row.id, quota->row.nodes);
            return false;
        }
    }
    return true;
}

static bool check_dependencies(struct core *core, const struct input *in)
{
    const struct jobspec *spec = in->u.submit.spec;
    for (size_t i = 0; i < spec->dependency_count; i++) {
        uint64_t id = spec->dependencies[i].job;
        if (!job_wait_is_known(core, id)) {
            refuse(core, in, spec->places.dependencies, "dependencies",
                   "there is no job %" PRIu64 " (dsctl job list --all)", id);
            return false;
        }
    }
    return true;
}

static int64_t point_in_time(const struct core *core, struct jobspec_time time)
{
    return time.in_ms > 0 ? core->now_ms + (int64_t)time.in_ms : time.at_ms;
}

static bool check_deadline(struct core *core, const struct input *in, int64_t limit_ms)
{
    const struct jobspec *spec = in->u.submit.spec;
    int64_t deadline_ms = point_in_time(core, spec->deadline);
    int64_t begin_ms = point_in_time(core, spec->not_before);
    begin_ms = begin_ms > core->now_ms ? begin_ms : core->now_ms;
    if (deadline_ms != 0 && begin_ms + limit_ms > deadline_ms) {
        refuse(core, in, spec->places.deadline, "deadline",
               "the job can never be done by then: its time limit alone is %" PRId64 " s",
               limit_ms / 1000);
        return false;
    }
    return true;
}

static bool check_fit(struct core *core, const struct input *in)
{
    const struct jobspec *spec = in->u.submit.spec;
    uint32_t large_enough;
    if (sched_can_ever_fit(core, spec->nodes_min, spec->gpus_per_node, spec->placement,
                           &large_enough)) {
        return true;
    }
    const char *within = spec->placement != PLACEMENT_ANY ? placement_names[spec->placement] : NULL;
    refuse(core, in, spec->places.nodes, "nodes",
           "the job can never start: it needs %" PRIu32 " nodes with %" PRIu32
           " accelerators each, the cluster has %" PRIu32 " such nodes of %zu%s%s (lower nodes or "
           "gpus_per_node)",
           spec->nodes_min, spec->gpus_per_node, large_enough, core->node_count,
           within != NULL ? " in one " : "", within != NULL ? within : "");
    return false;
}

bool job_check_submit(struct core *core, const struct input *in, int64_t *limit_ms)
{
    return check_queue(core, in, limit_ms) && check_account(core, in) && check_quotas(core, in) &&
           check_dependencies(core, in) && check_deadline(core, in, *limit_ms) &&
           check_fit(core, in);
}

/* ---------------------------------------------------------------- the job */

/* By policy only what saves when it is told to stop: a program of another kind says so itself. */
static bool preemptible_of(const struct core *core, const struct jobspec *spec)
{
    const struct queue *queue = share_queue(core, spec->queue);
    return spec->preemptible == BY_POLICY
               ? spec->has_train && (queue == NULL || queue->row.preemptible)
               : spec->preemptible == BY_POLICY_YES;
}

struct job *job_from_spec(struct core *core, const struct input_submit *submit, uint64_t id,
                          int64_t limit_ms)
{
    const struct jobspec *spec = submit->spec;
    struct job *job = mem_alloc(sizeof *job);
    struct job_row *row = &job->row;
    int64_t deadline_ms = point_in_time(core, spec->deadline);
    *row = (struct job_row){
        .id = id,
        .priority = spec->priority,
        .nodes_requested = spec->nodes_min,
        .nodes_min = spec->nodes_min,
        .nodes_max = spec->nodes_max,
        .gpus_per_node = spec->gpus_per_node,
        .has_train = spec->has_train,
        .restart_max = spec->restart_max,
        .time_limit_ms = limit_ms,
        .ckpt_keep = spec->checkpoint.keep > 0 ? spec->checkpoint.keep : 1,
        .state = JOB_PENDING,
        .submitted_ms = core->now_ms,
        .started_ms = ROW_NONE,
        .ended_ms = ROW_NONE,
        .not_before_ms = point_in_time(core, spec->not_before),
        .exit_code = ROW_NONE,
        .exit_signal = ROW_NONE,
        .steps = spec->has_train ? (int64_t)spec->train.steps : 0,
        .loss = NAN,
        .mtp_loss = NAN,
        .grad_norm = NAN,
        .tokens_per_s = NAN,
        .valid_loss = NAN,
        .array_index = ROW_NONE,
        .deadline_ms = deadline_ms != 0 ? deadline_ms : ROW_NONE,
        .promised_ms = ROW_NONE,
        .preemptible = preemptible_of(core, spec),
        .min_runtime_ms = spec->min_runtime_ms == UINT64_MAX
                              ? core->config.policy.preemption.min_runtime_ms
                              : (int64_t)spec->min_runtime_ms,
        .spares = spec->spares,
        .placement = spec->placement,
        .guard_rollback =
            spec->has_train && spec->train.guard.enabled ? spec->train.guard.rollback : 0,
        .expert_ranks = spec->has_train && spec->train.expert > 0 ? spec->train.expert : 1,
    };
    row->eligible_ms = row->not_before_ms > core->now_ms ? row->not_before_ms : core->now_ms;
    row_set_text(&row->request_hash, submit->request_hash);
    row_set_text(&row->name, spec->name);
    row_set_text(&row->user, submit->user);
    row_set_text(&row->account, spec->account);
    row_set_text(&row->queue, spec->queue);
    row_set_text(&row->stage, spec->stage);
    row_set_text(&row->ckpt_dir, spec->checkpoint.dir);
    row_set_text(&row->spec, submit->spec_json);
    row_set_text(&row->model_json, submit->model_json);
    row_set_text(&row->workdir, submit->workdir);
    return job;
}

/* One job, or one of an array: index into the spec's list. */
static void create(struct core *core, const struct input_submit *submit, int64_t limit_ms,
                   size_t index, uint64_t array_id)
{
    const struct jobspec *spec = submit->spec;
    struct job *job = job_from_spec(core, submit, core->next_job++, limit_ms);
    if (spec->array_count > 0) {
        job->row.array_id = array_id;
        job->row.array_index = spec->array[index];
        job->row.array_size = (int64_t)spec->array_count;
        job->row.array_limit = spec->singleton ? 1 : spec->array_limit;
    }
    if (index == 0) {
        row_set_text(&job->row.submit_key, submit->key);
    }
    core_mark(core, TABLE_JOB, &job->row);
    job_insert(core, job);
    job_wait_bind(core, job);
    share_bind(core, job);
    core_event(core, "job.submitted", job->row.id, 0, 0, "%s submitted job %" PRIu64 " (%s)",
               job->row.user, job->row.id, job->row.name);
    job_wait_add(core, job, spec->dependencies, spec->dependency_count);
    if (spec->singleton) {
        job_wait_singleton(core, job);
    }
    job_set_timers(core, job);
    char text[256];
    if (spec->hold) {
        job_put_on_hold(core, job, "held", "submitted on hold");
    } else if (!job_wait_review(core, job, text, sizeof text)) {
        job_put_on_hold(core, job, "dependency", text);
    } else {
        job_enqueue(core, job);
    }
}

void job_submit(struct core *core, const struct input *in)
{
    const struct input_submit *submit = &in->u.submit;
    const struct jobspec *spec = submit->spec;
    if (submit->key != NULL && !submit->dry_run) {
        int same;
        uint64_t known = keys_find(&core->keys, submit->key, submit->request_hash, &same);
        if (known != 0 && same) {
            reply_with_id(core, in, known, true);
            return;
        }
        if (known != 0) {
            core_reply(core, in, ERR_CONFLICT,
                       "key %.80s was used for another request, job %" PRIu64
                       ": use a new key for a new job",
                       submit->key, known);
            return;
        }
    }
    int64_t limit_ms;
    if (!job_check_submit(core, in, &limit_ms)) {
        return;
    }
    if (submit->dry_run) {
        reply_with_id(core, in, 0, false);
        return;
    }
    uint64_t first = core->next_job;
    if (submit->key != NULL) {
        keys_add(&core->keys, submit->key, submit->request_hash, first);
    }
    for (size_t i = 0; i == 0 || i < spec->array_count; i++) {
        create(core, submit, limit_ms, i, first);
    }
    reply_with_id(core, in, first, false);
}
