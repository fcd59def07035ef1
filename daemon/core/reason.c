/* core_why: the one reason for which a job waits, the first that applies, with counts. What the
 * last pass found out is in job->wait; the rest is counted here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/job_wait.h"
#include "daemon/core/node.h"
#include "daemon/core/reservation.h"
#include "daemon/core/sched_claim.h"
#include "daemon/core/share.h"
#include "daemon/core/timeline.h"
#include "lib/buf.h"
#include "lib/mem.h"

#define NAMES_SHOWN 3
#define DAY_MS      86400000

/* Where the nodes are that a job could use: each in one of these. */
enum whereabouts {
    FREE,
    HELD,
    WINDOW,
    BUSY,
    SPARE,
    MAINTENANCE,
    DRAINING,
    DOWN,
    FAULTY,
    SMALL,
    KINDS
};
struct census {
    uint32_t count[KINDS];
    const struct node *first[KINDS][NAMES_SHOWN];
    uint32_t total;
    uint32_t kept;         /* empty ones that are still to be kept as spares of the cluster */
    int64_t most_free;     /* accelerators of one that has too few */
    uint32_t in_one_place; /* free ones, of the placement that has most */
    uint64_t held_for;     /* the first of those that nodes are held for */
    int64_t held_until_ms;
    uint64_t window; /* the first reservation in the way */
    int64_t window_ms;
};

/* 14:05 UTC, or with the date when it is not within a day. */
static const char *when(const struct core *core, int64_t at_ms, char *text, size_t text_bytes)
{
    char full[32];
    time_format(at_ms, full, sizeof full);
    bool near = at_ms - core->now_ms < DAY_MS;
    if (near) {
        snprintf(text, text_bytes, "%.5s UTC", full + 11);
    } else {
        snprintf(text, text_bytes, "%s", full);
    }
    return text;
}

static bool is_planned(const struct core *core, const struct job *other)
{
    return other->queued && other->wait.nodes != NULL && other->wait.pass_ms == core->scheduled_ms;
}

/* The waiting job with a reservation of this node, other than `job`; NULL. */
static const struct job *holder(const struct core *core, const struct job *job,
                                const struct node *node)
{
    for (size_t i = 0; i < core->queue_count; i++) {
        const struct job *other = core->queue[i];
        if (other == job || !is_planned(core, other)) {
            continue;
        }
        for (uint32_t k = 0; k < other->wait.node_count; k++) {
            if (other->wait.nodes[k] == node) {
                return other;
            }
        }
    }
    return NULL;
}

/* A reservation or maintenance on this node that the job would run into; NULL. */
static const struct reservation *window(const struct core *core, const struct job *job,
                                        const struct node *node)
{
    struct demand d = demand_of(core, job);
    for (size_t r = 0; r < core->reservation_count; r++) {
        const struct reservation *res = core->reservations[r];
        if (!reservation_is_live(res) || reservation_admits(res, job) ||
            (d.length_ms != TIME_NEVER && core->now_ms + d.length_ms <= res->row.start_ms)) {
            continue;
        }
        for (size_t m = 0; m < res->member_count; m++) {
            if (res->members[m] == node) {
                return res;
            }
        }
    }
    return NULL;
}

/* The job that failed there and finds the node kept for its restart, other than `job`; NULL. */
static const struct job *claimant(const struct core *core, const struct job *job,
                                  const struct node *node)
{
    for (size_t i = 0; i < core->claim_count; i++) {
        const struct job *other = core_job(core, core->claims[i]);
        if (other == NULL || other == job || sched_claim_until_ms(core, other) == 0) {
            continue;
        }
        for (uint32_t k = 0; k < other->attempt->node_count; k++) {
            if (other->attempt->nodes[k].node == node) {
                return other;
            }
        }
    }
    return NULL;
}

static void held_for(struct census *c, const struct job *other, int64_t until_ms)
{
    c->held_for = c->held_for == 0 ? other->row.id : c->held_for;
    c->held_until_ms = c->held_for == other->row.id ? until_ms : c->held_until_ms;
}

static enum whereabouts locate(const struct core *core, const struct job *job,
                               const struct node *node, struct census *c)
{
    bool draining = node->row.by_user != NULL &&
                    (node->row.state == NODE_DRAINING || node->row.state == NODE_DRAINED);
    if (node_capacity(node) < job->row.gpus_per_node) {
        return SMALL;
    }
    if (draining) {
        return DRAINING;
    }
    if (node->maint > 0) {
        return MAINTENANCE;
    }
    if (!node_is_usable(node)) {
        return DOWN;
    }
    if (node->healthy < job->row.gpus_per_node) {
        return FAULTY;
    }
    bool has_room = job->row.gpus_per_node > 0 ? node->free >= job->row.gpus_per_node
                                               : node->hosted < NODE_HOSTED_MAX;
    if (!has_room) {
        c->most_free = node->free > c->most_free ? node->free : c->most_free;
        return BUSY;
    }
    if (c->kept > 0 && node->first == NULL && node->healthy > 0 && node->row.spare_job == 0) {
        c->kept--;
        return SPARE;
    }
    if (node->row.spare_job != 0 && node->row.spare_job != job->row.id) {
        return SPARE;
    }
    const struct reservation *res = window(core, job, node);
    if (res != NULL) {
        c->window = c->window == 0 ? res->row.id : c->window;
        c->window_ms = c->window == res->row.id ? res->row.start_ms : c->window_ms;
        return WINDOW;
    }
    const struct job *other = claimant(core, job, node);
    if (other != NULL) {
        held_for(c, other, sched_claim_until_ms(core, other));
        return HELD;
    }
    other = holder(core, job, node);
    if (other != NULL) {
        held_for(c, other, other->wait.start_ms);
        return HELD;
    }
    return FREE;
}

static void take_census(const struct core *core, const struct job *job, struct census *c)
{
    *c = (struct census){.total = (uint32_t)core->node_count,
                         .kept = job->row.restart_first ? 0 : core->config.policy.spares};
    uint32_t *places = mem_alloc_array(core->place_count + 1, sizeof *places);
    for (size_t i = core->node_count; i-- > 0;) { /* spares are the last ones */
        enum whereabouts at = locate(core, job, core->nodes[i], c);
        if (at == FREE) {
            uint32_t there = ++places[core->nodes[i]->place[job->row.placement]];
            c->in_one_place = there > c->in_one_place ? there : c->in_one_place;
        }
        memmove(c->first[at] + 1, c->first[at], (NAMES_SHOWN - 1) * sizeof c->first[at][0]);
        c->first[at][0] = core->nodes[i];
        c->count[at]++;
    }
    free(places);
}

/* " (gpu04, gpu07 ...)" */
static void put_names(struct buf *out, const struct census *c, enum whereabouts kind)
{
    uint32_t shown = c->count[kind] < NAMES_SHOWN ? c->count[kind] : NAMES_SHOWN;
    for (uint32_t i = 0; i < shown; i++) {
        buf_printf(out, "%s%.64s", i == 0 ? " (" : ", ", c->first[kind][i]->row.name);
    }
    buf_append_str(out, c->count[kind] > shown ? " ...)" : ")");
}

static void put_counts(const struct core *core, const struct census *c, struct buf *out)
{
    static const char *const names[] = {
        [FREE] = "free",         [HELD] = "held",   [WINDOW] = "set aside",
        [BUSY] = "busy",         [SPARE] = "spare", [MAINTENANCE] = "in maintenance",
        [DRAINING] = "draining", [DOWN] = "down",   [FAULTY] = "with too few healthy accelerators",
        [SMALL] = "too small",
    };
    char text[40];
    buf_printf(out, "%" PRIu32 " free", c->count[FREE]);
    for (int kind = HELD; kind < KINDS; kind++) {
        if (c->count[kind] == 0) {
            continue;
        }
        buf_printf(out, ", %" PRIu32 " %s", c->count[kind], names[kind]);
        if (kind == HELD) {
            buf_printf(out, " for job %" PRIu64 " until %s", c->held_for,
                       when(core, c->held_until_ms, text, sizeof text));
        } else if (kind == WINDOW) {
            buf_printf(out, " by reservation %" PRIu64 " from %s", c->window,
                       when(core, c->window_ms, text, sizeof text));
        } else if (kind == DRAINING || kind == DOWN || kind == MAINTENANCE || kind == FAULTY) {
            put_names(out, c, (enum whereabouts)kind);
        }
    }
}

static void put_needs(const struct job *job, struct buf *out)
{
    buf_printf(out, "needs %" PRId64 " node%s", job->row.nodes_min,
               job->row.nodes_min == 1 ? "" : "s");
    if (job->row.gpus_per_node > 0) {
        buf_printf(out, " with %" PRId64 " free accelerators each", job->row.gpus_per_node);
    }
    if (job->row.placement != PLACEMENT_ANY) {
        buf_printf(out, " in one %s", placement_names[job->row.placement]);
    }
}

static const char *explain_fit(const struct core *core, const struct job *job, struct buf *out)
{
    struct census c;
    if (core->node_count == 0) {
        buf_append_str(out, "no node has ever registered (start dsworkerd on one)");
        return "no_nodes";
    }
    take_census(core, job, &c);
    put_needs(job, out);
    buf_append_str(out, ": ");
    put_counts(core, &c, out);
    if (job->row.placement != PLACEMENT_ANY && c.count[FREE] > c.in_one_place) {
        buf_printf(out, ", at most %" PRIu32 " of the free ones in one %s", c.in_one_place,
                   placement_names[job->row.placement]);
    }
    if (c.count[FREE] == 0 && c.most_free > 0) {
        buf_printf(out, ", with up to %" PRId64 " accelerators free on one", c.most_free);
    }
    if (job->wait.code == WAIT_RESOURCES && job->wait.start_ms != TIME_NEVER) {
        char text[40];
        buf_printf(out, "; planned to start by %s",
                   when(core, job->wait.start_ms, text, sizeof text));
    }
    int64_t there =
        (int64_t)c.count[FREE] + c.count[HELD] + c.count[WINDOW] + c.count[BUSY] + c.count[SPARE];
    return there >= job->row.nodes_min ? "resources" : "nodes_unavailable";
}

/* ---------------------------------------------------------------- rules */

static void put_limit(struct buf *out, int64_t nodes_max, uint32_t nodes, int64_t jobs_max,
                      uint32_t jobs)
{
    if (jobs_max != ROW_NONE && jobs >= jobs_max) {
        buf_printf(out, "runs %" PRIu32 " jobs, at most %" PRId64 " may", jobs, jobs_max);
    } else {
        buf_printf(out, "has %" PRIu32 " nodes, at most %" PRId64 " are allowed", nodes, nodes_max);
    }
}

static void explain_quota(const struct core *core, const struct job *job, struct buf *out)
{
    const struct quota *quota = core->quotas[job->wait.who - 1];
    const struct quota_row *row = &quota->row;
    buf_printf(out, "quota %" PRIu64 " allows", row->id);
    if (row->user != NULL) {
        buf_printf(out, " user %.64s", strcmp(row->user, "*") == 0 ? job->row.user : row->user);
    }
    if (row->account != NULL) {
        buf_printf(out, " account %.64s",
                   strcmp(row->account, "*") == 0 ? job->row.account : row->account);
    }
    buf_printf(out, " %" PRId64 " nodes", row->nodes);
    if (row->class != NULL) {
        buf_printf(out, " at priority class %.32s", row->class);
    }
    buf_printf(out, ": %" PRId64 " in use, the job needs %" PRId64,
               share_quota_used(core, quota, job), job->row.nodes_min);
}

/* The code, and the sentence in out; NULL: no rule stands in the way. */
static const char *explain_rule(const struct core *core, const struct job *job, struct buf *out)
{
    const struct queue *q = job->queue;
    switch (job->wait.code) {
    case WAIT_QUEUE_STOPPED:
        buf_printf(out, "queue %s starts no jobs now (dsctl queue set %s)", q->row.name,
                   q->row.name);
        return "queue_stopped";
    case WAIT_QUEUE_LIMIT:
        buf_printf(out, "queue %s ", q->row.name);
        put_limit(out, q->row.nodes_max, q->nodes, q->row.jobs_max, q->jobs);
        return "queue_limit";
    case WAIT_USER_LIMIT:
        buf_printf(out, "user %.64s in queue %s ", job->row.user, q->row.name);
        put_limit(out, q->row.user_nodes_max, job->lane->nodes, q->row.user_jobs_max,
                  job->lane->jobs);
        return "user_limit";
    case WAIT_ACCOUNT_LIMIT:
        buf_printf(out, "account %.64s ", job->row.account);
        put_limit(out, job->member->account->row.nodes_max, job->member->account->nodes, ROW_NONE,
                  0);
        return "account_limit";
    case WAIT_QUOTA:
        explain_quota(core, job, out);
        return "quota";
    case WAIT_ARRAY:
        buf_printf(out, "its array runs %" PRId64 " jobs at a time, and %" PRIu32 " do",
                   job->row.array_limit, job->array != NULL ? job->array->running : 0);
        return "array_limit";
    default:
        return NULL;
    }
}

/* ---------------------------------------------------------------- others first */

static const char *explain_preemption(const struct core *core, const struct job *job,
                                      struct buf *out)
{
    uint32_t stopping = 0;
    const struct job *first = NULL;
    for (size_t i = 0; i < core->running_count; i++) {
        const struct job *other = core->running[i];
        bool is_victim =
            other->row.stop_cause != NULL && strcmp(other->row.stop_cause, "preempt") == 0;
        stopping += is_victim;
        first = is_victim && (first == NULL || other->row.id < first->row.id) ? other : first;
    }
    char text[40];
    buf_printf(out, "starts when %" PRIu32 " job%s saved and stopped for it", stopping,
               stopping == 1 ? " has" : "s have");
    if (first != NULL) {
        buf_printf(out, ", first job %" PRIu64 " (%s)", first->row.id, first->row.name);
    }
    buf_printf(out, ", by %s at the latest", when(core, job->wait.start_ms, text, sizeof text));
    return "preemption";
}

static const char *explain_order(const struct core *core, const struct job *job, struct buf *out)
{
    const struct job *first = core_job(core, job->wait.who);
    char text[40];
    if (first == NULL || first == job || !first->queued) {
        return explain_fit(core, job, out);
    }
    buf_printf(out, "job %" PRIu64 " (%s) goes first", first->row.id, first->row.name);
    if (first->wait.start_ms != TIME_NEVER && first->wait.nodes != NULL) {
        buf_printf(out, ", planned for %s", when(core, first->wait.start_ms, text, sizeof text));
    }
    buf_append_str(out, ", and it fits into no gap before that; ");
    explain_fit(core, job, out);
    if (job->row.time_limit_ms == 0) {
        buf_append_str(out, " (without a time_limit it fills no gaps)");
    }
    return "queue";
}

static const char *explain_queued(const struct core *core, const struct job *job, struct buf *out)
{
    const char *code = explain_rule(core, job, out);
    if (code != NULL) {
        return code;
    }
    switch (job->wait.code) {
    case WAIT_NONE:
        buf_append_str(out, "has just come: the next pass looks at it; ");
        explain_fit(core, job, out);
        return "queue";
    case WAIT_PREEMPTION:
        return explain_preemption(core, job, out);
    case WAIT_PRIORITY:
        return explain_order(core, job, out);
    default:
        return explain_fit(core, job, out);
    }
}

/* ---------------------------------------------------------------- not in the queue */

static const char *explain_absent(const struct core *core, const struct job *job, struct buf *out)
{
    const char *why = job->row.reason_text != NULL ? job->row.reason_text : "no reason was given";
    char text[400];
    switch (job->row.state) {
    case JOB_HELD:
        if (job->row.reason_code != NULL && strcmp(job->row.reason_code, "dependency") == 0) {
            buf_printf(out, "%s (dsctl job release %" PRIu64 " starts it all the same)", why,
                       job->row.id);
            return "dependency";
        }
        buf_printf(out, "held until somebody releases it (dsctl job release %" PRIu64 "): %s",
                   job->row.id, why);
        return "held";
    case JOB_SUSPENDED:
        buf_printf(out, "suspended until somebody resumes it (dsctl job resume %" PRIu64 "): %s",
                   job->row.id, why);
        return "suspended";
    default:
        break;
    }
    if (job->need_count > 0) {
        job_wait_text(core, job, text, sizeof text);
        buf_append_str(out, text);
        return "dependency";
    }
    if (job->row.reason_code == NULL || strcmp(job->row.reason_code, "backoff") != 0) {
        time_format(job->row.not_before_ms, text, sizeof text);
        buf_printf(out, "is not to start before %s (not_before)", text);
        return "not_before";
    }
    buf_printf(out,
               "waits %.1f s more before restart %" PRId64 " (%" PRId64
               " without a newer checkpoint): %s",
               (double)(job->row.not_before_ms - core->now_ms) / 1000, job->row.restarts,
               job->row.fruitless, why);
    return "backoff";
}

const char *job_reason(const struct core *core, const struct job *job, struct buf *out)
{
    return job->queued ? explain_queued(core, job, out) : explain_absent(core, job, out);
}

bool core_why(const struct core *core, uint64_t id, char *code, size_t code_bytes, char *text,
              size_t text_bytes)
{
    const struct job *job = core_job(core, id);
    if (job == NULL || (job->row.state != JOB_PENDING && job->row.state != JOB_HELD &&
                        job->row.state != JOB_SUSPENDED)) {
        return false;
    }
    struct buf out = {0};
    snprintf(code, code_bytes, "%s", job_reason(core, job, &out));
    snprintf(text, text_bytes, "%s", buf_cstr(&out));
    buf_fini(&out);
    return true;
}
