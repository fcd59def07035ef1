#include "daemon/core/progress.h"

#include <inttypes.h>

#include "daemon/core/attempt.h"
#include "daemon/core/ledger.h"
#include "lib/err.h"

/* More than a day of waiting within one report is not believed; the ledger clamps to the interval
 * anyway. */
#define WAIT_MAX_MS 86400000

static int64_t bounded_ms(uint64_t ms)
{
    return ms < WAIT_MAX_MS ? (int64_t)ms : WAIT_MAX_MS;
}

static void append_metric(struct core *core, const struct job *job, const struct input_metric *m)
{
    struct metric_row *row = core_append(core, TABLE_METRIC);
    row->job_id = job->row.id;
    row->step = (int64_t)m->step;
    row->epoch = (uint64_t)job->row.epoch;
    row->tokens = (int64_t)m->tokens;
    row->loss = m->loss;
    row->mtp_loss = m->mtp_loss;
    row->grad_norm = m->grad_norm;
    row->lr = m->lr;
    row->tokens_per_s = m->tokens_per_s;
    row->balance_maxvio = m->balance_maxvio;
    row->valid_loss = m->valid_loss;
    row->valid_maxvio = m->valid_maxvio;
    row_set_text(&row->layer_maxvio, m->layer_maxvio);
    row->step_ms = m->step_ms > 0 ? (int64_t)m->step_ms : ROW_NONE;
}

static void first_step(struct core *core, struct attempt *attempt, int64_t step)
{
    const struct job *job = attempt->job;
    attempt->row.first_step = step;
    attempt->row.first_step_ms = core->now_ms;
    if (attempt->row.epoch > 1 && job->row.step_at_ms > 0) {
        attempt->row.restart_ms = core->now_ms - job->row.step_at_ms;
    }
    for (uint32_t i = 0; i < attempt->allocation_count; i++) {
        struct allocation *allocation = &attempt->allocations[i];
        if (allocation->gpu->allocation == allocation && attempt->row.failing_ms == ROW_NONE) {
            meter_switch(core, allocation->gpu, CATEGORY_PRODUCTIVE, job->row.id,
                         attempt->row.epoch, INT64_MAX);
        }
    }
}

static void take_step(struct core *core, struct attempt *attempt, const struct input_metric *m)
{
    struct job_row *job = &attempt->job->row;
    if (attempt->row.first_step == ROW_NONE) {
        first_step(core, attempt, (int64_t)m->step);
    }
    attempt->row.last_step = (int64_t)m->step;
    job->step = (int64_t)m->step;
    job->tokens = (int64_t)m->tokens;
    job->loss = m->loss;
    job->mtp_loss = m->mtp_loss;
    job->grad_norm = m->grad_norm;
    job->tokens_per_s = m->tokens_per_s;
    if (!isnan(m->valid_loss)) {
        job->valid_loss = m->valid_loss;
    }
    job->step_at_ms = core->now_ms;
    if (!isnan(m->loss)) {
        append_metric(core, attempt->job, m);
    }
}

void progress_report(struct core *core, const struct input *in)
{
    const struct input_steps *steps = &in->u.steps;
    struct job *job = core_job(core, steps->job);
    const struct node *node = core_node_of_session(core, in->session);
    if (job == NULL && steps->job >= core->next_job) {
        core_reply(core, in, ERR_NOT_FOUND, "there is no job %" PRIu64, steps->job);
        return;
    }
    if (job == NULL || node == NULL ||
        attempt_find_node(core, node, steps->job, steps->epoch) == NULL) {
        core_reply(core, in, ERR_STALE, "epoch %" PRIu64 " of job %" PRIu64 " is over",
                   steps->epoch, steps->job);
        return;
    }
    struct attempt *attempt = job->attempt;
    bool is_new = false;
    for (size_t i = 0; i < steps->metric_count; i++) {
        const struct input_metric *m = &steps->metrics[i];
        bool advances =
            attempt->row.last_step == ROW_NONE || (int64_t)m->step > attempt->row.last_step;
        if (m->step <= INT64_MAX && m->tokens <= INT64_MAX && advances) {
            take_step(core, attempt, m);
            is_new = true;
        }
    }
    if (is_new) { /* else a repeat, whose waits were counted */
        if (steps->steps > 0 && steps->steps <= INT64_MAX) {
            job->row.steps = (int64_t)steps->steps;
        }
        meter_add_waits(core, attempt, bounded_ms(steps->ckpt_stall_ms),
                        bounded_ms(steps->data_wait_ms));
        core_mark(core, TABLE_JOB, &job->row);
        core_mark(core, TABLE_ATTEMPT, &attempt->row);
    }
    core_reply(core, in, 0, "%s", "");
}
