#include "daemon/core/job.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/ledger.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/node.h"
#include "daemon/core/recover.h"
#include "daemon/core/sched.h"
#include "daemon/core/sched_claim.h"
#include "daemon/core/share.h"
#include "lib/err.h"
#include "lib/mem.h"

bool job_state_is_final(enum job_state state)
{
    return state == JOB_COMPLETED || state == JOB_FAILED || state == JOB_CANCELLED;
}

void job_destroy(void *object)
{
    struct job *job = object;
    if (job == NULL) {
        return;
    }
    attempt_destroy(job->attempt);
    row_fini(&tables[TABLE_JOB], &job->row);
    free(job->ckpts);
    free(job->needs);
    free(job->dependents);
    free(job->wait.nodes);
    free(job);
}

void job_insert(struct core *core, struct job *job)
{
    job->prev = core->job_last;
    *(core->job_last != NULL ? &core->job_last->next : &core->job_first) = job;
    core->job_last = job;
    map_set(&core->jobs, job->row.id, job);
}

/* ---------------------------------------------------------------- queue */

void job_enqueue(struct core *core, struct job *job)
{
    assert(job->row.state == JOB_PENDING && !job->queued);
#ifndef MUTANT_not_before_ignored
    if (job->row.not_before_ms > core->now_ms) {
        timers_set(&core->timers, TIMER_JOB, job->row.id, job->row.not_before_ms);
        return;
    }
#endif
#ifndef MUTANT_dependency_ignored
    if (job->need_count > 0) {
        return;
    }
#endif
    void *queue = core->queue;
    mem_grow(&queue, &core->queue_capacity, core->queue_count + 1, sizeof *core->queue);
    core->queue = queue;
    job->queue_at = core->queue_count;
    core->queue[core->queue_count++] = job;
    job->queued = true;
    job->wait.code = WAIT_NONE;
    sched_job_came(core, job);
}

static void dequeue(struct core *core, struct job *job)
{
    if (!job->queued) {
        return;
    }
    struct job *last = core->queue[--core->queue_count];
    core->queue[job->queue_at] = last;
    last->queue_at = job->queue_at;
    job->queued = false;
    sched_job_left(core, job);
}

void job_reconsider(struct core *core, struct job *job)
{
    if (job->row.state != JOB_PENDING) {
        return;
    }
    dequeue(core, job);
    char text[256];
    if (job_wait_review(core, job, text, sizeof text)) {
        job_enqueue(core, job);
    } else {
        job_put_on_hold(core, job, "dependency", text);
    }
}

/* ---------------------------------------------------------------- transitions */

static void set_reason(struct job *job, const char *code, const char *text)
{
    row_set_text(&job->row.reason_code, code);
    row_set_text(&job->row.reason_text, text);
}

void job_set_reason(struct core *core, struct job *job, const char *code, const char *text)
{
    set_reason(job, code, text);
    core_mark(core, TABLE_JOB, &job->row);
}

/* What is waited out after a failure ends with the wait; what its owner asked for does not. */
static void end_backoff(struct job *job)
{
    if (job->row.reason_code != NULL && strcmp(job->row.reason_code, "backoff") == 0) {
        job->row.not_before_ms = 0;
    }
}

static uint64_t epoch_of(const struct job *job)
{
    return (uint64_t)job->row.epoch;
}

/* The job has ended for good: it leaves memory once its row is written. */
static void end(struct core *core, struct job *job, enum job_state state, const char *event,
                const char *code, const char *text)
{
    dequeue(core, job);
    job->row.state = state;
    job->row.ended_ms = core->now_ms;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, code, text);
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, event, job->row.id, epoch_of(job), 0, "job %" PRIu64 " (%s) %s%s%s",
               job->row.id, job->row.name,
               state == JOB_COMPLETED ? "completed"
               : state == JOB_FAILED  ? "failed"
                                      : "was cancelled",
               text != NULL ? ": " : "", text != NULL ? job->row.reason_text : "");
    ckpt_detach_job(core, job);
    node_free_spares(core, job->row.id);
    share_unbind(core, job);
    *(job->prev != NULL ? &job->prev->next : &core->job_first) = job->next;
    *(job->next != NULL ? &job->next->prev : &core->job_last) = job->prev;
    map_remove(&core->jobs, job->row.id);
    static const enum job_outcome outcomes[] = {[JOB_COMPLETED] = OUTCOME_COMPLETED,
                                                [JOB_FAILED] = OUTCOME_FAILED,
                                                [JOB_CANCELLED] = OUTCOME_CANCELLED};
    job_wait_ended(core, job, outcomes[state]);
    core_discard(core, job_destroy, job);
}

void job_put_on_hold(struct core *core, struct job *job, const char *code, const char *text)
{
    dequeue(core, job);
    end_backoff(job);
    job->row.promised_ms = ROW_NONE;
    job->row.state = JOB_HELD;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, code, text);
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, "job.held", job->row.id, epoch_of(job), 0, "job %" PRIu64 " (%s) is held: %s",
               job->row.id, job->row.name, job->row.reason_text);
    node_free_spares(core, job->row.id);
}

void job_suspend_now(struct core *core, struct job *job, const char *text)
{
    dequeue(core, job);
    end_backoff(job);
    job->row.promised_ms = ROW_NONE;
    job->row.state = JOB_SUSPENDED;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, "suspended", text);
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, "job.suspended", job->row.id, epoch_of(job), 0,
               "job %" PRIu64 " (%s) is suspended: %s", job->row.id, job->row.name,
               job->row.reason_text);
    node_free_spares(core, job->row.id);
}

void job_back_to_queue(struct core *core, struct job *job, const char *event, const char *text)
{
    job->row.state = JOB_PENDING;
    job->row.fruitless = 0;
    set_reason(job, NULL, NULL);
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, event, job->row.id, epoch_of(job), 0, "job %" PRIu64 " (%s) was %s",
               job->row.id, job->row.name, text);
    job_reconsider(core, job);
}

/* After a stop that was asked for on others' behalf, or to change its size: at once into the queue,
 * at no cost to its budget. */
static void requeue_stopped(struct core *core, struct job *job, const char *cause)
{
    char text[400];
    snprintf(text, sizeof text, "%.380s",
             job->row.reason_text != NULL ? job->row.reason_text : cause);
    job->row.state = JOB_PENDING;
    job->row.preempted += strcmp(cause, "preempt") == 0;
    job->row.nodes_requested = job->row.nodes_min;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, cause, text);
    core_mark(core, TABLE_JOB, &job->row);
    bool saved = job->attempt->row.saved_ms != ROW_NONE;
    core_event(core, "job.requeued", job->row.id, epoch_of(job), 0,
               "job %" PRIu64 " (%s) is back in the queue, %s: %s", job->row.id, job->row.name,
               saved ? "its work saved" : "from its newest checkpoint", text);
    job_enqueue(core, job);
}

static void requeue(struct core *core, struct job *job, const struct verdict *verdict)
{
    job->row.state = JOB_PENDING;
    job->row.restarts++;
    job->row.fruitless += verdict->counts;
    /* Whoever loses a node goes on before others begin; but not one that fails again and again. */
    job->row.restart_first = strcmp(verdict->class, "node_lost") == 0 && job->row.fruitless <= 1;
    job->row.nodes_requested = job->row.nodes_min;
    int64_t again_ms = verdict->delay_ms > 0 ? core->now_ms + verdict->delay_ms : 0;
    job->row.not_before_ms = again_ms > job->row.not_before_ms ? again_ms : job->row.not_before_ms;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, verdict->delay_ms > 0 ? "backoff" : "restart", verdict->text);
    core_mark(core, TABLE_JOB, &job->row);
    char delay[64] = "now";
    if (verdict->delay_ms > 0) {
        snprintf(delay, sizeof delay, "in %.1f s", (double)verdict->delay_ms / 1000);
    }
    core_event(core, "job.requeued", job->row.id, epoch_of(job), 0,
               "job %" PRIu64 " (%s) is started again %s: %s", job->row.id, job->row.name, delay,
               verdict->text);
    job_enqueue(core, job);
    sched_claim_add(core, job);
}

void job_started(struct core *core, struct job *job)
{
    dequeue(core, job);
    bool is_first = job->row.epoch == 1;
    job->row.state = JOB_STARTING;
    job->row.restart_first = false;
    job->row.promised_ms = ROW_NONE;
    job->row.nodes_requested = job->attempt->node_count;
    share_started(core, job);
    if (job->row.started_ms == ROW_NONE) {
        job->row.started_ms = core->now_ms;
    }
    set_reason(job, NULL, NULL);
    core_mark(core, TABLE_JOB, &job->row);
    job_set_timers(core, job);
    if (is_first) {
        job_wait_started(core, job);
    }
}

static bool is_live(const struct job *job)
{
    return job->row.state == JOB_STARTING || job->row.state == JOB_RUNNING;
}

/* The latest start that meets the deadline. */
static int64_t latest_start_ms(const struct job *job)
{
    int64_t left_ms = job->row.time_limit_ms > 0 ? job->row.time_limit_ms - job->row.ran_ms : 0;
    return job->row.deadline_ms - (left_ms > 0 ? left_ms : 0);
}

void job_set_timers(struct core *core, const struct job *job)
{
    if (job->row.time_limit_ms > 0 && is_live(job)) {
        timers_set(&core->timers, TIMER_JOB, job->row.id,
                   job->attempt->row.started_ms + job->row.time_limit_ms - job->row.ran_ms);
    }
    if (job->row.deadline_ms != ROW_NONE) {
        timers_set(&core->timers, TIMER_JOB, job->row.id,
                   is_live(job) ? job->row.deadline_ms : latest_start_ms(job) + 1);
    }
    if (job->row.state == JOB_PENDING && job->row.not_before_ms > core->now_ms) {
        timers_set(&core->timers, TIMER_JOB, job->row.id, job->row.not_before_ms);
    }
}

void job_running(struct core *core, struct job *job)
{
    job->row.state = JOB_RUNNING;
    core_mark(core, TABLE_JOB, &job->row);
    struct attempt *attempt = job->attempt;
    for (uint32_t i = 0; i < attempt->allocation_count && !job->row.has_train; i++) {
        struct allocation *allocation = &attempt->allocations[i];
        if (allocation->gpu->allocation == allocation) {
            meter_switch(core, allocation->gpu, CATEGORY_PRODUCTIVE, job->row.id, epoch_of(job),
                         INT64_MAX);
        }
    }
    core_event(core, "job.running", job->row.id, epoch_of(job), 0,
               "all ranks of job %" PRIu64 " (%s) have started", job->row.id, job->row.name);
}

void job_stopping(struct core *core, struct job *job, const char *stop_cause)
{
    job->row.state = JOB_STOPPING;
    row_set_text(&job->row.stop_cause, stop_cause);
    core_mark(core, TABLE_JOB, &job->row);
}

static void record_verdict(struct core *core, struct job *job, const struct verdict *v)
{
    job->row.exit_code = v->exit_code;
    job->row.exit_signal = v->exit_signal;
    row_set_text(&job->row.exit_class, v->class[0] != 0 ? v->class : NULL);
    row_set_text(&job->attempt->row.cause, v->cause);
    core_mark(core, TABLE_JOB, &job->row);
    core_mark(core, TABLE_ATTEMPT, &job->attempt->row);
}

static void end_over_limit(struct core *core, struct job *job)
{
    char text[128];
    snprintf(text, sizeof text, "its time limit of %.0f s is over (time_limit)",
             (double)job->row.time_limit_ms / 1000);
    row_set_text(&job->row.exit_class, "time_limit");
    end(core, job, JOB_FAILED, "job.failed", "time_limit", text);
}

static void end_over_deadline(struct core *core, struct job *job)
{
    char time[32], text[128];
    time_format(job->row.deadline_ms, time, sizeof time);
    snprintf(text, sizeof text, "it cannot be done by its deadline, %s (deadline)", time);
    row_set_text(&job->row.exit_class, "deadline");
    end(core, job, JOB_FAILED, "job.failed", "deadline", text);
}

bool job_cause_is_soft(const char *cause)
{
    static const char *const soft[] = {"preempt", "maint", "requeue", "resize", "suspend"};
    for (size_t i = 0; i < sizeof soft / sizeof soft[0] && cause != NULL; i++) {
        if (strcmp(cause, soft[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* It was stopped on purpose, and the end is not a success. */
static bool end_stopped(struct core *core, struct job *job, const char *cause)
{
    row_set_text(&job->attempt->row.cause, cause);
    core_mark(core, TABLE_ATTEMPT, &job->attempt->row);
    bool over_limit = job->row.time_limit_ms > 0 && job->row.ran_ms >= job->row.time_limit_ms;
    if (strcmp(cause, "cancel") == 0) {
        end(core, job, JOB_CANCELLED, "job.cancelled", "cancelled",
            job->row.reason_text != NULL ? job->row.reason_text : "cancelled");
    } else if (strcmp(cause, "hold") == 0) {
        job_put_on_hold(core, job, "held",
                        job->row.reason_text != NULL ? job->row.reason_text : "held");
    } else if (strcmp(cause, "deadline") == 0) {
        end_over_deadline(core, job);
    } else if (strcmp(cause, "time_limit") == 0 ||
               (over_limit && job_cause_is_soft(job->row.stop_cause))) {
        end_over_limit(core, job);
    } else if (strcmp(cause, "suspend") == 0) {
        job_suspend_now(core, job,
                        job->row.reason_text != NULL ? job->row.reason_text : "suspended");
    } else if (job_cause_is_soft(job->row.stop_cause)) {
        requeue_stopped(core, job, cause);
    } else {
        return false;
    }
    return true;
}

void job_attempt_ended(struct core *core, struct job *job)
{
    char cause[16] = "";
    if (job->row.stop_cause != NULL) {
        snprintf(cause, sizeof cause, "%s", job->row.stop_cause);
    }
    struct verdict verdict;
    share_stopped(core, job);
    recover_decide(core, job, &verdict);
    bool cancelled = strcmp(cause, "cancel") == 0;
    if (verdict.action == VERDICT_COMPLETE ? cancelled : strcmp(cause, "failure") != 0) {
        if (end_stopped(core, job, cause)) {
            return;
        }
    }
    record_verdict(core, job, &verdict);
    struct ckpt *resume = core_ckpt(core, job->attempt->row.resume_ckpt_id);
    if (verdict.resume_is_corrupt && resume != NULL && resume->row.state == CKPT_COMMITTED) {
        ckpt_mark_corrupt(core, resume, verdict.text);
    }
    switch (verdict.action) {
    case VERDICT_COMPLETE:
        end(core, job, JOB_COMPLETED, "job.completed", NULL, NULL);
        return;
    case VERDICT_FAIL:
        end(core, job, JOB_FAILED, "job.failed", verdict.class, verdict.text);
        return;
    case VERDICT_HOLD:
        job_put_on_hold(core, job, verdict.class, verdict.text);
        return;
    case VERDICT_RETRY:
    default:
        if (job->row.time_limit_ms > 0 && job->row.ran_ms >= job->row.time_limit_ms) {
            end_over_limit(core, job);
        } else {
            requeue(core, job, &verdict);
        }
    }
}

void job_preempt(struct core *core, struct job *preemptor, struct job *const *victims, size_t count)
{
    preemptor->row.preempts++;
    core_mark(core, TABLE_JOB, &preemptor->row);
    for (size_t i = 0; i < count; i++) {
        struct job *job = victims[i];
        char text[256];
        snprintf(text, sizeof text,
                 "made room for job %" PRIu64 " (%.80s), which has a higher priority",
                 preemptor->row.id, preemptor->row.name);
        job_set_reason(core, job, "preempt", text);
        core_event(core, "job.preempted", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) is asked to save and to stop within %.0f s: it %s",
                   job->row.id, job->row.name, (double)attempt_save_ms(core, job) / 1000, text);
        attempt_stop(core, job->attempt, "preempt");
    }
}

/* ---------------------------------------------------------------- people */

struct job *job_find_live(struct core *core, const struct input *in, uint64_t id)
{
    struct job *job = core_job(core, id);
    if (job == NULL && id > 0 && id < core->next_job) {
        core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " has already ended", id);
    } else if (job == NULL) {
        core_reply(core, in, ERR_NOT_FOUND, "there is no job %" PRIu64 " (dsctl job list --all)",
                   id);
    }
    return job;
}

static void by_whom(const struct input *in, const char *done, char *text, size_t text_bytes)
{
    const char *user = in->u.job.user != NULL ? in->u.job.user : "unknown";
    bool has_reason = in->u.job.reason != NULL && in->u.job.reason[0] != 0;
    snprintf(text, text_bytes, "%s by %.64s%s%.256s", done, user, has_reason ? ": " : "",
             has_reason ? in->u.job.reason : "");
}

void job_cancel(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    core_reply(core, in, 0, "%s", "");
    char text[400];
    by_whom(in, "cancelled", text, sizeof text);
    if (job->row.stop_cause != NULL && strcmp(job->row.stop_cause, "cancel") == 0) {
        return;
    }
    if (job->row.state == JOB_PENDING || job->row.state == JOB_HELD ||
        job->row.state == JOB_SUSPENDED) {
        end(core, job, JOB_CANCELLED, "job.cancelled", "cancelled", text);
        return;
    }
    set_reason(job, "cancelled", text);
    core_event(core, "job.stopping", job->row.id, epoch_of(job), 0,
               "job %" PRIu64 " (%s) is being %s", job->row.id, job->row.name, text);
    if (job->row.state == JOB_STOPPING) {
        job_stopping(core, job, "cancel"); /* instead of what it was stopped for */
    } else {
        attempt_stop(core, job->attempt, "cancel");
    }
}

void job_hold(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    char text[400];
    by_whom(in, "held", text, sizeof text);
    bool is_held = job->row.state == JOB_HELD ||
                   (job->row.stop_cause != NULL && strcmp(job->row.stop_cause, "hold") == 0);
    if (!is_held && (job->row.state == JOB_PENDING || job->row.state == JOB_SUSPENDED)) {
        job_put_on_hold(core, job, "held", text);
    } else if (!is_held) {
        bool stopping = job->row.state == JOB_STOPPING;
        if (stopping && strcmp(job->row.stop_cause, "failure") != 0 &&
            !job_cause_is_soft(job->row.stop_cause)) {
            core_reply(core, in, ERR_CONFLICT, "job %" PRIu64 " is being stopped for good (%s)",
                       job->row.id, job->row.stop_cause);
            return;
        }
        set_reason(job, "held", text);
        core_event(core, "job.stopping", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) is being %s", job->row.id, job->row.name, text);
        if (stopping) {
            job_stopping(core, job, "hold");
        } else {
            attempt_stop(core, job->attempt, "hold");
        }
    }
    core_reply(core, in, 0, "%s", "");
}

void job_release(struct core *core, const struct input *in)
{
    struct job *job = job_find_live(core, in, in->u.job.job);
    if (job == NULL) {
        return;
    }
    if (job->row.state == JOB_STOPPING) {
        core_reply(core, in, ERR_CONFLICT,
                   "job %" PRIu64 " is still stopping: release it when it is HELD", job->row.id);
        return;
    }
    if (job->row.state == JOB_HELD) {
        char text[400];
        by_whom(in, "released", text, sizeof text);
        if (job->row.reason_code != NULL && strcmp(job->row.reason_code, "dependency") == 0) {
            job_wait_waive(core, job); /* it runs all the same */
        }
        job_back_to_queue(core, job, "job.released", text);
    }
    core_reply(core, in, 0, "%s", "");
}

void job_timer(struct core *core, uint64_t id)
{
    struct job *job = core_job(core, id);
    if (job == NULL) {
        return;
    }
    bool has_deadline = job->row.deadline_ms != ROW_NONE;
    bool waits = job->row.state == JOB_PENDING || job->row.state == JOB_HELD ||
                 job->row.state == JOB_SUSPENDED;
    if (has_deadline && waits && core->now_ms > latest_start_ms(job)) {
        end_over_deadline(core, job);
    } else if (has_deadline && is_live(job) && core->now_ms >= job->row.deadline_ms) {
        core_event(core, "job.stopping", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) is stopped: its deadline has come", job->row.id,
                   job->row.name);
        attempt_stop(core, job->attempt, "deadline");
#ifndef MUTANT_lost_wakeup
    } else if (job->row.state == JOB_PENDING && !job->queued) {
        job_enqueue(core, job);
#endif
    } else if (job->row.time_limit_ms > 0 && is_live(job) &&
               core->now_ms - job->attempt->row.started_ms + job->row.ran_ms >=
                   job->row.time_limit_ms) {
        core_event(core, "job.stopping", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) is stopped: its time limit is over", job->row.id,
                   job->row.name);
        attempt_stop(core, job->attempt, "time_limit");
    }
}
