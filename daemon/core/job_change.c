#include "daemon/core/job_change.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/job.h"
#include "daemon/core/sched.h"
#include "daemon/core/share.h"
#include "lib/err.h"

static const char *who(const char *user)
{
    return user != NULL ? user : "unknown";
}

/* ---------------------------------------------------------------- update */

static bool waits(const struct job *job)
{
    return job->row.state == JOB_PENDING || job->row.state == JOB_HELD ||
           job->row.state == JOB_SUSPENDED;
}

/* What a submit of this size to this queue and account would be refused for. */
static bool check_limits(struct core *core, const struct input *in, const struct job *job,
                         const struct queue *queue, const struct account *account, int64_t nodes)
{
    int64_t most = queue->row.nodes_max;
    const char *whose = "queue", *name = queue->row.name;
    if (queue->row.user_nodes_max != ROW_NONE &&
        (most == ROW_NONE || queue->row.user_nodes_max < most)) {
        most = queue->row.user_nodes_max;
    }
    if (account != NULL && account->row.nodes_max != ROW_NONE &&
        (most == ROW_NONE || account->row.nodes_max < most)) {
        most = account->row.nodes_max;
        whose = "account";
        name = account->row.name;
    }
    if (most != ROW_NONE && nodes > most) {
        core_reply(core, in, ERR_INVALID,
                   "job %" PRIu64 " could never start: %" PRId64
                   " nodes are over the limit of %s %.80s (allowed: up to %" PRId64 ")",
                   job->row.id, nodes, whose, name, most);
        return false;
    }
    return true;
}

/* False after a refusal: nothing is changed by a request with a mistake in it. */
static bool check_update(struct core *core, const struct input *in, const struct job *job)
{
    const struct input_job_update *u = &in->u.update;
    const struct queue *queue = job->queue;
    if ((u->fields & (JOB_FIELD_QUEUE | JOB_FIELD_ACCOUNT)) != 0 && !waits(job)) {
        core_reply(core, in, ERR_CONFLICT,
                   "job %" PRIu64 " is %s: queue and account change only while it waits",
                   job->row.id, job_state_names[job->row.state]);
        return false;
    }
    if ((u->fields & JOB_FIELD_QUEUE) != 0) {
        queue = share_queue(core, u->queue);
        if (queue == NULL || !queue->row.accepts) {
            core_reply(core, in, ERR_INVALID, "queue %.80s %s (dsctl queue list)", u->queue,
                       queue == NULL ? "does not exist" : "takes no jobs");
            return false;
        }
    }
    const struct account *account =
        (u->fields & JOB_FIELD_ACCOUNT) != 0 ? share_account(core, u->account) : NULL;
    if ((u->fields & JOB_FIELD_ACCOUNT) != 0 &&
        (account != NULL ? !account->row.accepts : core->config.policy.accounts_closed)) {
        core_reply(core, in, ERR_INVALID, "account %.80s %s (dsctl account list)", u->account,
                   account == NULL ? "does not exist" : "takes no jobs");
        return false;
    }
    int64_t priority = (u->fields & JOB_FIELD_PRIORITY) != 0 ? u->priority : job->row.priority;
    if (priority < -1000000 || priority > 1000000 ||
        (queue->row.priority_max != ROW_NONE && priority > queue->row.priority_max)) {
        core_reply(
            core, in, ERR_INVALID,
            "priority %" PRId64 " is out of range (allowed: -1000000 to %" PRId64 ")", priority,
            queue->row.priority_max != ROW_NONE ? queue->row.priority_max : (int64_t)1000000);
        return false;
    }
    int64_t limit_ms =
        (u->fields & JOB_FIELD_TIME_LIMIT) != 0 ? u->time_limit_ms : job->row.time_limit_ms;
    int64_t most_ms = queue->row.time_limit_ms;
    if (limit_ms < 0 || (most_ms != ROW_NONE && (limit_ms == 0 || limit_ms > most_ms))) {
        core_reply(core, in, ERR_INVALID,
                   "a time limit of %" PRId64 " s is over that of queue %s (allowed: up to %" PRId64
                   " s)",
                   limit_ms / 1000, queue->row.name, most_ms != ROW_NONE ? most_ms / 1000 : 0);
        return false;
    }
    bool has_deadline = (u->fields & JOB_FIELD_DEADLINE) != 0 && u->deadline_ms != ROW_NONE;
    if (has_deadline && u->deadline_ms <= core->now_ms) {
        core_reply(core, in, ERR_INVALID, "the deadline is over already");
        return false;
    }
    int64_t left_ms = limit_ms > job->row.ran_ms ? limit_ms - job->row.ran_ms : 0;
    if (has_deadline && waits(job) && core->now_ms + left_ms > u->deadline_ms) {
        core_reply(core, in, ERR_INVALID,
                   "job %" PRIu64 " could never be done by then: its time limit leaves it %" PRId64
                   " s",
                   job->row.id, left_ms / 1000);
        return false;
    }
    if ((u->fields & (JOB_FIELD_QUEUE | JOB_FIELD_ACCOUNT)) != 0 &&
        !check_limits(core, in, job, queue,
                      (u->fields & JOB_FIELD_ACCOUNT) != 0 ? account : job->member->account,
                      job->row.nodes_min)) {
        return false;
    }
    if ((u->fields & JOB_FIELD_ARRAY_LIMIT) != 0 &&
        (job->array == NULL || u->array_limit < 0 || u->array_limit > INT32_MAX)) {
        core_reply(core, in, ERR_INVALID, "job %" PRIu64 " %s", job->row.id,
                   job->array == NULL ? "is not part of an array" : "cannot have such a limit");
        return false;
    }
    if ((u->fields & JOB_FIELD_MIN_RUNTIME) != 0 && u->min_runtime_ms < 0) {
        core_reply(core, in, ERR_INVALID, "the least run time is at least 0");
        return false;
    }
    return true;
}

static void set_array_limit(struct core *core, const struct array *array, int64_t limit)
{
    for (uint64_t id = array->id; id < array->id + array->size; id++) {
        struct job *job = core_job(core, id);
        if (job != NULL) {
            job->row.array_limit = limit;
            core_mark(core, TABLE_JOB, &job->row);
        }
    }
}

static void set_place(struct core *core, struct job *job, const struct input_job_update *u)
{
    if ((u->fields & (JOB_FIELD_QUEUE | JOB_FIELD_ACCOUNT)) == 0) {
        return;
    }
    share_unbind(core, job);
    if ((u->fields & JOB_FIELD_QUEUE) != 0) {
        row_set_text(&job->row.queue, u->queue);
    }
    if ((u->fields & JOB_FIELD_ACCOUNT) != 0) {
        row_set_text(&job->row.account, u->account);
    }
    share_bind(core, job);
}

void job_update(struct core *core, const struct input *in)
{
    const struct input_job_update *u = &in->u.update;
    struct job *job = job_find_live(core, in, u->job);
    if (job == NULL || !check_update(core, in, job)) {
        return;
    }
    set_place(core, job, u);
    if ((u->fields & JOB_FIELD_PRIORITY) != 0) {
        job->row.priority = u->priority;
    }
    if ((u->fields & JOB_FIELD_TIME_LIMIT) != 0) {
        job->row.time_limit_ms = u->time_limit_ms;
    }
    if ((u->fields & JOB_FIELD_DEADLINE) != 0) {
        job->row.deadline_ms = u->deadline_ms;
    }
    if ((u->fields & JOB_FIELD_PREEMPTIBLE) != 0) {
        job->row.preemptible = u->preemptible;
    }
    if ((u->fields & JOB_FIELD_MIN_RUNTIME) != 0) {
        job->row.min_runtime_ms = u->min_runtime_ms;
    }
    if ((u->fields & JOB_FIELD_ARRAY_LIMIT) != 0) {
        set_array_limit(core, job->array, u->array_limit);
    }
    if ((u->fields & JOB_FIELD_NOT_BEFORE) != 0) {
        job->row.not_before_ms = u->not_before_ms;
        job->row.eligible_ms = u->not_before_ms > core->now_ms ? u->not_before_ms : core->now_ms;
        job_reconsider(core, job);
    }
    core_mark(core, TABLE_JOB, &job->row);
    job_set_timers(core, job);
    core_event(core, "job.updated", job->row.id, (uint64_t)job->row.epoch, 0,
               "%s changes job %" PRIu64 " (%s)", who(u->user), job->row.id, job->row.name);
    core->sched_due = true;
    core_reply(core, in, 0, "%s", "");
}

/* ---------------------------------------------------------------- stop and go on */

/* Asks a running job to save and to end, for this cause. False after a refusal. */
static bool stop(struct core *core, const struct input *in, struct job *job, const char *cause,
                 const char *text)
{
    if (job->row.state == JOB_STOPPING && !job_cause_is_soft(job->row.stop_cause) &&
        strcmp(job->row.stop_cause, "failure") != 0) {
        core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " is being stopped already (%s)",
                   job->row.id, job->row.stop_cause);
        return false;
    }
    job_set_reason(core, job, cause, text);
    core_event(core, "job.stopping", job->row.id, (uint64_t)job->row.epoch, 0,
               "job %" PRIu64 " (%s) is %s", job->row.id, job->row.name, text);
    if (job->row.state == JOB_STOPPING) {
        job_stopping(core, job, cause);
    } else {
        attempt_stop(core, job->attempt, cause);
    }
    return true;
}

static void by_whom(char *text, size_t text_bytes, const char *done, const char *user,
                    const char *reason)
{
    bool has_reason = reason != NULL && reason[0] != 0;
    snprintf(text, text_bytes, "%s by %.64s%s%.256s", done, who(user), has_reason ? ": " : "",
             has_reason ? reason : "");
}

void job_suspend(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    char text[400];
    by_whom(text, sizeof text, "suspended", in->u.job.user, in->u.job.reason);
    if (job->row.state == JOB_HELD) {
        core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " is held, it does not run anyway",
                   job->row.id);
        return;
    }
    if (job->row.state == JOB_PENDING) {
        job_suspend_now(core, job, text);
    } else if (job->row.state != JOB_SUSPENDED && !stop(core, in, job, "suspend", text)) {
        return;
    }
    core_reply(core, in, 0, "%s", "");
}

void job_resume(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    bool stopping = job->row.state == JOB_STOPPING && strcmp(job->row.stop_cause, "suspend") == 0;
    if (stopping) {
        job_stopping(core, job, "requeue"); /* it ends all the same, and goes back to the queue */
    } else if (job->row.state == JOB_SUSPENDED) {
        char text[400];
        by_whom(text, sizeof text, "resumed", in->u.job.user, in->u.job.reason);
        job_back_to_queue(core, job, "job.resumed", text);
    } else {
        core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " is %s, not SUSPENDED", job->row.id,
                   job_state_names[job->row.state]);
        return;
    }
    core_reply(core, in, 0, "%s", "");
}

void job_requeue(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    char text[400];
    by_whom(text, sizeof text, "requeued", in->u.job.user, in->u.job.reason);
    if (job->attempt == NULL || job->attempt->row.state == ATTEMPT_ENDED) {
        core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " is %s, it does not run", job->row.id,
                   job_state_names[job->row.state]);
        return;
    }
    if (stop(core, in, job, "requeue", text)) {
        core_reply(core, in, 0, "%s", "");
    }
}

/* ---------------------------------------------------------------- resize */

static bool check_size(struct core *core, const struct input *in, const struct job *job)
{
    uint32_t min = in->u.resize.nodes_min, max = in->u.resize.nodes_max;
    if (min < 1 || max < min || max > JOBSPEC_NODES_MAX) {
        core_reply(core, in, ERR_INVALID,
                   "nodes: %" PRIu32 " to %" PRIu32 " is no size (allowed: 1 to %u)", min, max,
                   JOBSPEC_NODES_MAX);
        return false;
    }
    int64_t ranks = job->row.gpus_per_node > 0 ? job->row.gpus_per_node : 1;
    if (job->row.expert_ranks > 1 && (min * ranks) % job->row.expert_ranks != 0) {
        core_reply(core, in, ERR_INVALID,
                   "%" PRIu32 " nodes x %" PRId64 " ranks are no multiple of the mesh's %" PRId64,
                   min, ranks, job->row.expert_ranks);
        return false;
    }
    if (!check_limits(core, in, job, job->queue, job->member->account, min)) {
        return false;
    }
    uint32_t large_enough;
    if (!sched_can_ever_fit(core, min, job->row.gpus_per_node, job->row.placement, &large_enough)) {
        core_reply(core, in, ERR_INVALID,
                   "it could never start: %" PRIu32 " nodes with %" PRId64
                   " accelerators each, of %zu the cluster has %" PRIu32 " such%s%s",
                   min, job->row.gpus_per_node, core->node_count, large_enough,
                   job->row.placement != PLACEMENT_ANY ? " in one " : "",
                   job->row.placement != PLACEMENT_ANY ? placement_names[job->row.placement] : "");
        return false;
    }
    return true;
}

void job_resize(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.resize.job);
    if (job == NULL || !check_size(core, in, job)) {
        return;
    }
    uint32_t min = in->u.resize.nodes_min, max = in->u.resize.nodes_max;
    bool is_live = job->attempt != NULL && job->attempt->row.state != ATTEMPT_ENDED;
    bool fits = is_live && job->attempt->node_count >= min && job->attempt->node_count <= max;
    char text[200];
    snprintf(text, sizeof text, "resized to %" PRIu32 "%s%.0" PRIu32 " nodes by %.64s", min,
             max > min ? " to " : "", max > min ? max : 0, who(in->u.resize.user));
    bool stopping = job->row.state == JOB_STOPPING;
    if (is_live && !fits && !stopping && !stop(core, in, job, "resize", text)) {
        return;
    }
    job->row.nodes_min = min;
    job->row.nodes_max = max;
    if (!is_live) {
        job->row.nodes_requested = min;
    }
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, "job.resized", job->row.id, (uint64_t)job->row.epoch, 0,
               "job %" PRIu64 " (%s) is %s", job->row.id, job->row.name, text);
    core->sched_due = true;
    core_reply(core, in, 0, "%s", "");
}
