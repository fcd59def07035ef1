#include "daemon/core/job.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/ledger.h"
#include "daemon/core/recover.h"
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

static bool before(const struct job *a, const struct job *b)
{
    return a->row.priority != b->row.priority ? a->row.priority > b->row.priority
                                              : a->row.id < b->row.id;
}

/* The first place whose job does not come before this one. */
static size_t queue_place(const struct core *core, const struct job *job)
{
    size_t low = 0, high = core->queue_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (before(core->queue[middle], job)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void job_enqueue(struct core *core, struct job *job)
{
    assert(job->row.state == JOB_PENDING && !job->queued);
    if (job->row.not_before_ms > core->now_ms) {
        timers_set(&core->timers, TIMER_JOB, job->row.id, job->row.not_before_ms);
        return;
    }
    size_t at = queue_place(core, job);
    void *queue = core->queue;
    mem_grow(&queue, &core->queue_capacity, core->queue_count + 1, sizeof *core->queue);
    core->queue = queue;
    memmove(core->queue + at + 1, core->queue + at, (core->queue_count - at) * sizeof *core->queue);
    core->queue[at] = job;
    core->queue_count++;
    job->queued = true;
    core->sched_due |= at == 0; /* behind another one it has to wait anyway */
}

static void dequeue(struct core *core, struct job *job)
{
    if (!job->queued) {
        return;
    }
    size_t at = queue_place(core, job);
    assert(core->queue[at] == job);
    core->queue_count--;
    memmove(core->queue + at, core->queue + at + 1, (core->queue_count - at) * sizeof *core->queue);
    job->queued = false;
    core->sched_due |= at == 0;
}

/* ---------------------------------------------------------------- transitions */

static void set_reason(struct job *job, const char *code, const char *text)
{
    row_set_text(&job->row.reason_code, code);
    row_set_text(&job->row.reason_text, text);
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
    *(job->prev != NULL ? &job->prev->next : &core->job_first) = job->next;
    *(job->next != NULL ? &job->next->prev : &core->job_last) = job->prev;
    map_remove(&core->jobs, job->row.id);
    core_discard(core, job_destroy, job);
}

static void put_on_hold(struct core *core, struct job *job, const char *code, const char *text)
{
    dequeue(core, job);
    job->row.state = JOB_HELD;
    row_set_text(&job->row.stop_cause, NULL);
    set_reason(job, code, text);
    core_mark(core, TABLE_JOB, &job->row);
    core_event(core, "job.held", job->row.id, epoch_of(job), 0, "job %" PRIu64 " (%s) is held: %s",
               job->row.id, job->row.name, job->row.reason_text);
}

static void requeue(struct core *core, struct job *job, const struct verdict *verdict)
{
    job->row.state = JOB_PENDING;
    job->row.restarts++;
    job->row.fruitless += verdict->counts;
    job->row.not_before_ms = verdict->delay_ms > 0 ? core->now_ms + verdict->delay_ms : 0;
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
}

void job_started(struct core *core, struct job *job)
{
    dequeue(core, job);
    job->row.state = JOB_STARTING;
    if (job->row.started_ms == ROW_NONE) {
        job->row.started_ms = core->now_ms;
    }
    set_reason(job, NULL, NULL);
    core_mark(core, TABLE_JOB, &job->row);
    if (job->row.time_limit_ms > 0) {
        timers_set(&core->timers, TIMER_JOB, job->row.id,
                   core->now_ms + job->row.time_limit_ms - job->row.ran_ms);
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

/* It was stopped on purpose, and the end is not a success. */
static bool end_stopped(struct core *core, struct job *job, const char *cause)
{
    row_set_text(&job->attempt->row.cause, cause);
    if (strcmp(cause, "cancel") == 0) {
        end(core, job, JOB_CANCELLED, "job.cancelled", "cancelled",
            job->row.reason_text != NULL ? job->row.reason_text : "cancelled");
    } else if (strcmp(cause, "hold") == 0) {
        put_on_hold(core, job, "held",
                    job->row.reason_text != NULL ? job->row.reason_text : "held");
    } else if (strcmp(cause, "time_limit") == 0) {
        end_over_limit(core, job);
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
        put_on_hold(core, job, verdict.class, verdict.text);
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

/* ---------------------------------------------------------------- people */

/* NULL after a refusal. */
static struct job *find_live(struct core *core, const struct input *in)
{
    uint64_t id = in->u.job.job;
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
    struct job *job = find_live(core, in);
    if (job == NULL) {
        return;
    }
    core_reply(core, in, 0, "%s", "");
    char text[400];
    by_whom(in, "cancelled", text, sizeof text);
    if (job->row.stop_cause != NULL && strcmp(job->row.stop_cause, "cancel") == 0) {
        return;
    }
    if (job->row.state == JOB_PENDING || job->row.state == JOB_HELD) {
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
    struct job *job = find_live(core, in);
    if (job == NULL) {
        return;
    }
    char text[400];
    by_whom(in, "held", text, sizeof text);
    bool is_held = job->row.state == JOB_HELD ||
                   (job->row.stop_cause != NULL && strcmp(job->row.stop_cause, "hold") == 0);
    if (!is_held && job->row.state == JOB_PENDING) {
        put_on_hold(core, job, "held", text);
    } else if (!is_held) {
        bool stopping = job->row.state == JOB_STOPPING;
        if (stopping && strcmp(job->row.stop_cause, "failure") != 0) {
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
    struct job *job = find_live(core, in);
    if (job == NULL) {
        return;
    }
    if (job->row.state == JOB_STOPPING) {
        core_reply(core, in, ERR_CONFLICT,
                   "job %" PRIu64 " is still stopping: release it when it is HELD", job->row.id);
        return;
    }
    if (job->row.state == JOB_HELD) {
        job->row.state = JOB_PENDING;
        job->row.fruitless = 0;
        job->row.not_before_ms = 0;
        set_reason(job, NULL, NULL);
        core_mark(core, TABLE_JOB, &job->row);
        char text[400];
        by_whom(in, "released", text, sizeof text);
        core_event(core, "job.released", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) was %s", job->row.id, job->row.name, text);
        job_enqueue(core, job);
    }
    core_reply(core, in, 0, "%s", "");
}

void job_timer(struct core *core, uint64_t id)
{
    struct job *job = core_job(core, id);
    if (job == NULL) {
        return;
    }
    if (job->row.state == JOB_PENDING && !job->queued) {
        job_enqueue(core, job);
    } else if (job->row.time_limit_ms > 0 &&
               (job->row.state == JOB_STARTING || job->row.state == JOB_RUNNING) &&
               core->now_ms - job->attempt->row.started_ms + job->row.ran_ms >=
                   job->row.time_limit_ms) {
        core_event(core, "job.stopping", job->row.id, epoch_of(job), 0,
                   "job %" PRIu64 " (%s) is stopped: its time limit is over", job->row.id,
                   job->row.name);
        attempt_stop(core, job->attempt, "time_limit");
    }
}
