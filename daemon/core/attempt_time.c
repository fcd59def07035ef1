/* How long things of an attempt take: to save, as far as that was measured; to end, as far as that
 * can be said; and the steps of a stop that is waited for. */
#include "daemon/core/attempt.h"

int64_t attempt_save_ms(const struct core *core, const struct job *job)
{
    const struct policy *policy = &core->config.policy;
    int64_t ms = job->row.save_ms > 0 ? 3 * job->row.save_ms + core->config.stop_grace_ms
                                      : policy->preemption.save_first_ms;
    ms = ms < policy->preemption.save_max_ms ? ms : policy->preemption.save_max_ms;
    return ms > core->config.stop_grace_ms ? ms : core->config.stop_grace_ms;
}

/* A gang ends together, but each of its nodes says so for itself: from the first of them on, the
 * others follow within this. */
#define ENDING_MS 60000
/* and those that are free already are not given out for this long. */
#define GATHER_MS 10000

int64_t attempt_gathers_until_ms(const struct attempt *attempt)
{
    if (attempt->ending_ms == 0) {
        return 0;
    }
    int64_t until_ms = attempt->ending_ms + GATHER_MS;
    return attempt->row.failing_ms != ROW_NONE && attempt->end_ms > until_ms ? attempt->end_ms
                                                                             : until_ms;
}

int64_t attempt_end_ms(const struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    if (attempt->row.state == ATTEMPT_STOPPING && attempt->row.stop_ms != ROW_NONE) {
        return attempt->row.stop_ms + attempt->row.stop_grace_ms;
    }
    if (attempt->ending_ms != 0 && core->now_ms < attempt->ending_ms + ENDING_MS) {
        return attempt->ending_ms + ENDING_MS;
    }
    int64_t assumed_ms = core->config.policy.assumed_runtime_ms;
    int64_t ran_ms = core->now_ms - attempt->row.started_ms;
    if (job->row.time_limit_ms == 0) { /* the longer it runs, the longer it will */
        return attempt->row.started_ms + (ran_ms < assumed_ms / 2 ? assumed_ms : 2 * ran_ms);
    }
    return attempt->row.started_ms + job->row.time_limit_ms - job->row.ran_ms +
           core->config.stop_grace_ms;
}

void attempt_saved(struct core *core, struct attempt *attempt, int64_t took_ms)
{
    struct job_row *job = &attempt->job->row;
    int64_t faded_ms = job->save_ms - job->save_ms / 8; /* the longest, slowly forgotten */
    job->save_ms = took_ms > faded_ms ? took_ms : faded_ms;
    job->preempts = 0;
    core_mark(core, TABLE_JOB, job);
    if (attempt->row.stop_ms != ROW_NONE && attempt->row.saved_ms == ROW_NONE) {
        attempt->row.saved_ms = core->now_ms;
        core_mark(core, TABLE_ATTEMPT, &attempt->row);
    }
}

void attempt_stop_acked(struct core *core, const struct input *in)
{
    struct node *node = core_node_of_session(core, in->session);
    struct attempt_node *an =
        node != NULL ? attempt_find_node(core, node, in->u.acked.job, in->u.acked.epoch) : NULL;
    struct attempt *attempt = an != NULL ? an->attempt : NULL;
    if (attempt == NULL || attempt->row.state != ATTEMPT_STOPPING || an->stop_acked) {
        return;
    }
    an->stop_acked = true;
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        if (attempt_node_is_live(&attempt->nodes[i]) && !attempt->nodes[i].stop_acked) {
            return;
        }
    }
    if (attempt->row.stop_acked_ms == ROW_NONE) {
        attempt->row.stop_acked_ms = core->now_ms;
        core_mark(core, TABLE_ATTEMPT, &attempt->row);
    }
}
