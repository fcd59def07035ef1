/* core_check: what must hold between any two steps, as sentences. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/job.h"
#include "daemon/core/node.h"
#include "daemon/core/state.h"

static char problem[512];

static const char *wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *wrong(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(problem, sizeof problem, fmt, ap);
    va_end(ap);
    return problem;
}

/* Returns upward on the first problem. */
#define CHECK(expr)                                                                                \
    do {                                                                                           \
        const char *check_ = (expr);                                                               \
        if (check_ != NULL) {                                                                      \
            return check_;                                                                         \
        }                                                                                          \
    } while (0)

static const char *check_gpu(const struct core *core, const struct gpu *gpu)
{
    const struct gpu_row *row = &gpu->row;
    const struct allocation *allocation = gpu->allocation;
    bool is_free = row->category == CATEGORY_IDLE || row->category == CATEGORY_DOWN ||
                   row->category == CATEGORY_PLANNED_DOWN;
    bool is_spare = row->category == CATEGORY_HELD && row->job_id == gpu->node->row.spare_job;
    if (is_free != (row->job_id == 0) || (is_free || is_spare) != (allocation == NULL)) {
        return wrong("gpu %" PRIu64 " is booked %s for job %" PRIu64 " and is %s", row->id,
                     category_names[row->category], row->job_id,
                     allocation != NULL ? "allocated" : "not allocated");
    }
    if (allocation != NULL &&
        (allocation->gpu != gpu || allocation->row.released_ms != ROW_NONE ||
         allocation->row.job_id != row->job_id || allocation->row.epoch != row->epoch)) {
        return wrong("gpu %" PRIu64 " is allocated to another one than it is booked for", row->id);
    }
    if (row->since_ms > core->now_ms || row->since_ms < row->first_seen_ms || row->price_id == 0 ||
        row->price_id > core->price_count) {
        return wrong("the meter of gpu %" PRIu64 " has a wrong time or price", row->id);
    }
    return NULL;
}

static const char *check_node(const struct core *core, const struct node *node)
{
    uint32_t hosted = 0;
    const struct attempt_node *prev = NULL;
    for (const struct attempt_node *an = node->first; an != NULL; an = an->next) {
        if (an->node != node || an->prev != prev || !attempt_node_is_live(an)) {
            return wrong("the list of node %s holds a part that is not live there", node->row.name);
        }
        hosted += an->gpu_count == 0 ? an->rank_count : 0;
        prev = an;
    }
    if (hosted != node->hosted || hosted > NODE_HOSTED_MAX) {
        return wrong("node %s counts %" PRIu32 " ranks without accelerator, has %" PRIu32,
                     node->row.name, node->hosted, hosted);
    }
    uint32_t free = 0, present = 0;
    for (size_t i = 0; i < node->gpu_count; i++) {
        free += gpu_is_free(node->gpus[i]);
        present += node->gpus[i]->row.present;
    }
    if (free != node->free || present != node->present) {
        return wrong("node %s counts %" PRIu32 " free accelerators of %" PRIu32 ", has %" PRIu32
                     " of %" PRIu32,
                     node->row.name, node->free, node->present, free, present);
    }
    if (node->session != 0 && core_node_of_session(core, node->session) != node) {
        return wrong("the session of node %s is not known as its own", node->row.name);
    }
    if (node->row.state == NODE_DRAINED && node->first != NULL) {
        return wrong("node %s is DRAINED and runs something", node->row.name);
    }
    if (node->row.state == NODE_DOWN && (node->first != NULL || node->session != 0)) {
        return wrong("node %s is DOWN and is connected or runs something", node->row.name);
    }
    if (node->leftover_count > 0 && node->session != 0 && node->row.state != NODE_FENCING) {
        return wrong("node %s has old ranks and is not FENCING", node->row.name);
    }
    return NULL;
}

static const char *check_attempt_node(const struct attempt_node *an)
{
    bool is_live = attempt_node_is_live(an);
    bool is_listed = false;
    for (const struct attempt_node *other = an->node->first; other != NULL; other = other->next) {
        is_listed |= other == an;
    }
    if (is_live != is_listed) {
        return wrong("job %" PRIu64 " on node %s is %s but %s in its list", an->row.job_id,
                     an->node->row.name, phase_names[an->row.phase], is_listed ? "is" : "is not");
    }
    for (uint32_t i = 0; i < an->gpu_count; i++) {
        const struct allocation *allocation = &an->allocations[i];
        if (allocation->gpu == NULL || allocation->gpu->node != an->node ||
            (allocation->row.released_ms == ROW_NONE) != is_live ||
            (allocation->gpu->allocation == allocation) != is_live) {
            return wrong("job %" PRIu64 " on node %s is %s and its allocation does not say so",
                         an->row.job_id, an->node->row.name, phase_names[an->row.phase]);
        }
    }
    return NULL;
}

static const char *check_attempt(const struct job *job)
{
    const struct attempt *attempt = job->attempt;
    bool waits = job->row.state == JOB_PENDING || job->row.state == JOB_HELD ||
                 job->row.state == JOB_SUSPENDED;
    if (attempt == NULL) {
        return waits && job->row.epoch == 0 ? NULL
                                            : wrong("job %" PRIu64 " is %s without an attempt",
                                                    job->row.id, job_state_names[job->row.state]);
    }
    static const enum attempt_state wanted[] = {
        [JOB_PENDING] = ATTEMPT_ENDED,     [JOB_STARTING] = ATTEMPT_STARTING,
        [JOB_RUNNING] = ATTEMPT_RUNNING,   [JOB_SUSPENDED] = ATTEMPT_ENDED,
        [JOB_STOPPING] = ATTEMPT_STOPPING, [JOB_HELD] = ATTEMPT_ENDED,
    };
    if (job_state_is_final(job->row.state) || attempt->row.state != wanted[job->row.state]) {
        return wrong("job %" PRIu64 " is %s, its attempt %s", job->row.id,
                     job_state_names[job->row.state], attempt_state_names[attempt->row.state]);
    }
    if (attempt->row.epoch != (uint64_t)job->row.epoch ||
        attempt->node_count != (uint64_t)attempt->row.nodes ||
        (attempt->row.state != ATTEMPT_ENDED &&
         attempt->node_count != (uint64_t)job->row.nodes_requested)) {
        return wrong("job %" PRIu64 " has epoch %" PRId64 " and an attempt of epoch %" PRIu64
                     " on %" PRIu32 " nodes",
                     job->row.id, job->row.epoch, attempt->row.epoch, attempt->node_count);
    }
    bool any_live = false;
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        CHECK(check_attempt_node(&attempt->nodes[i]));
        any_live |= attempt_node_is_live(&attempt->nodes[i]);
    }
    if (any_live == (attempt->row.state == ATTEMPT_ENDED)) {
        return wrong("the attempt of job %" PRIu64 " is %s, which its nodes are not", job->row.id,
                     attempt_state_names[attempt->row.state]);
    }
    if ((job->row.state == JOB_STOPPING) != (job->row.stop_cause != NULL)) {
        return wrong("job %" PRIu64 " is %s with stop cause %s", job->row.id,
                     job_state_names[job->row.state],
                     job->row.stop_cause != NULL ? job->row.stop_cause : "none");
    }
    return NULL;
}

static const char *check_ckpts(const struct core *core, const struct job *job)
{
    int64_t kept = 0;
    for (size_t i = 0; i < job->ckpt_count; i++) {
        const struct ckpt *ckpt = job->ckpts[i];
        if (core_ckpt(core, ckpt->row.id) != ckpt || ckpt->row.job_id != job->row.id ||
            ckpt->row.epoch > (uint64_t)job->row.epoch) {
            return wrong("checkpoint %" PRIu64 " is not this job's, or from its future",
                         ckpt->row.id);
        }
        kept += ckpt_is_good(ckpt) && !ckpt->row.pinned;
        bool is_live =
            job->attempt->row.state != ATTEMPT_ENDED && job->attempt->row.epoch == ckpt->row.epoch;
        if (ckpt->row.state == CKPT_WRITING && !is_live) {
            return wrong("checkpoint %" PRIu64 " is WRITING and its attempt is over", ckpt->row.id);
        }
        for (int64_t r = 0; ckpt->row.state == CKPT_COMMITTED && r < ckpt->row.world_size; r++) {
            if (!ckpt->shards[r].known) {
                return wrong("checkpoint %" PRIu64 " is COMMITTED without shard %" PRId64,
                             ckpt->row.id, r);
            }
        }
    }
    int64_t most = job->row.ckpt_keep + (job->row.guard_rollback > 0 ? CKPT_FOR_GUARD_MAX : 0);
    if (kept > most) {
        return wrong("job %" PRIu64 " keeps %" PRId64 " checkpoints, not %" PRId64, job->row.id,
                     kept, most);
    }
    const struct ckpt *newest = ckpt_newest(job);
    if (job->row.ckpt_id != (newest != NULL ? newest->row.id : 0)) {
        return wrong("job %" PRIu64 " says its newest checkpoint is %" PRIu64, job->row.id,
                     job->row.ckpt_id);
    }
    return NULL;
}

static const char *check_queue(const struct core *core)
{
    for (size_t i = 0; i < core->queue_count; i++) {
        const struct job *job = core->queue[i];
        if (!job->queued || job->row.state != JOB_PENDING || job->queue_at != i ||
            job->need_count > 0) {
            return wrong("job %" PRIu64 " is in the queue and %s", job->row.id,
                         job_state_names[job->row.state]);
        }
    }
    size_t queued = 0;
    for (const struct job *job = core->job_first; job != NULL; job = job->next) {
        queued += job->queued;
        if (job->row.state == JOB_PENDING && !job->queued && job->row.not_before_ms == 0 &&
            job->need_count == 0) {
            return wrong("job %" PRIu64 " is PENDING, not in the queue, and waits for nothing",
                         job->row.id);
        }
    }
    return queued == core->queue_count ? NULL : wrong("the queue has lost or doubled a job");
}

static const char *check_share(const struct core *core)
{
    for (size_t i = 0; i < core->queue_kinds; i++) {
        const struct queue *queue = core->queues[i];
        uint32_t jobs = 0, nodes = 0, waiting = 0;
        for (const struct job *job = core->job_first; job != NULL; job = job->next) {
            bool mine = job->queue == queue;
            jobs += mine && job->counted;
            nodes += mine && job->counted ? job->attempt->node_count : 0;
            waiting += mine && !job->counted;
        }
        if (jobs != queue->jobs || nodes != queue->nodes || waiting != queue->waiting) {
            return wrong("queue %s counts %" PRIu32 " jobs on %" PRIu32 " nodes and %" PRIu32
                         " waiting, has %" PRIu32 ", %" PRIu32 ", %" PRIu32,
                         queue->row.name, queue->jobs, queue->nodes, queue->waiting, jobs, nodes,
                         waiting);
        }
    }
    for (size_t i = 0; i < core->member_count; i++) {
        const struct member *member = core->members[i];
        int64_t rate = 0;
        for (size_t j = 0; j < core->running_count; j++) {
            const struct job *job = core->running[j];
            rate += job->member == member
                        ? (int64_t)job->attempt->node_count * job->row.gpus_per_node *
                              job->queue->row.weight_milli
                        : 0;
        }
        if (rate != member->rate_milli || member->row.at_ms > core->now_ms) {
            return wrong("user %s of account %s uses %" PRId64 " thousandths, counted as %" PRId64,
                         member->row.user, member->row.account, rate, member->rate_milli);
        }
    }
    size_t running = 0;
    for (const struct job *job = core->job_first; job != NULL; job = job->next) {
        bool is_live = job->attempt != NULL && job->attempt->row.state != ATTEMPT_ENDED;
        running += is_live;
        if (is_live != job->counted || (is_live && core->running[job->running_at] != job)) {
            return wrong("job %" PRIu64 " is %s and is %scounted as running", job->row.id,
                         job_state_names[job->row.state], job->counted ? "" : "not ");
        }
    }
    return running == core->running_count ? NULL : wrong("the list of running jobs is too long");
}

const char *core_check(const struct core *core)
{
    for (size_t i = 0; i < core->gpu_count; i++) {
        CHECK(check_gpu(core, core->gpus[i]));
    }
    for (size_t i = 0; i < core->node_count; i++) {
        CHECK(check_node(core, core->nodes[i]));
    }
    uint64_t last = 0;
    for (const struct job *job = core->job_first; job != NULL; job = job->next) {
        if (job->row.id <= last || job->row.id >= core->next_job ||
            core_job(core, job->row.id) != job) {
            return wrong("job %" PRIu64 " is out of order or cannot be found", job->row.id);
        }
        last = job->row.id;
        CHECK(check_attempt(job));
        CHECK(check_ckpts(core, job));
    }
    CHECK(check_queue(core));
    return check_share(core);
}
