/* core_why: the one reason for which a job waits, the first that applies, with counts. What the
 * last pass found out is in job->wait; the rest is counted here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/census.h"
#include "daemon/core/job_wait.h"
#include "daemon/core/node.h"
#include "daemon/core/share.h"
#include "daemon/core/timeline.h"
#include "lib/buf.h"

#define DAY_MS        86400000
#define ILL_BYTES_MAX 60

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

/* " (gpu04, gpu07 ...)" */
static void put_names(struct buf *out, const struct census *c, enum whereabouts kind)
{
    uint32_t shown = c->count[kind] < NAMES_SHOWN ? c->count[kind] : NAMES_SHOWN;
    for (uint32_t i = 0; i < shown; i++) {
        buf_printf(out, "%s%.64s", i == 0 ? " (" : ", ", c->first[kind][i]->row.name);
    }
    buf_append_str(out, c->count[kind] > shown ? " ...)" : ")");
}

/* "gpu04: accelerator 3 has xid 79 and 2 more" */
static void put_ill(struct buf *out, const struct node *node)
{
    uint32_t ill = 0;
    buf_printf(out, "%.64s", node->row.name);
    for (size_t i = 0; i < node->gpu_count; i++) {
        const struct gpu *gpu = node->gpus[i];
        if (!gpu_is_well(gpu) && ill++ == 0) {
            const char *health = gpu->row.present ? gpu->row.health : "gone";
            buf_printf(out, ": accelerator %" PRId64 " %.*s", gpu->row.idx, ILL_BYTES_MAX, health);
        }
    }
    if (ill > 1) {
        buf_printf(out, ", and %" PRIu32 " more", ill - 1);
    }
}

static void put_faulty(struct buf *out, const struct census *c)
{
    uint32_t shown = c->count[FAULTY] < NAMES_SHOWN ? c->count[FAULTY] : NAMES_SHOWN;
    for (uint32_t i = 0; i < shown; i++) {
        buf_append_str(out, i == 0 ? " (" : "; ");
        put_ill(out, c->first[FAULTY][i]);
    }
    buf_append_str(out, c->count[FAULTY] > shown ? " ...)" : ")");
}

/* Who has `holder->count` nodes, and until when. */
static void put_holder(const struct core *core, const struct holder *holder, struct buf *out)
{
    const struct reservation *res = holder->reservation;
    char text[40];
    if (holder->job != NULL) {
        buf_printf(out, " held for job %" PRIu64 " until %s", holder->job->row.id,
                   when(core, holder->until_ms, text, sizeof text));
        return;
    }
    bool is_maint = res->row.kind == RESERVATION_MAINT, is_now = res->row.start_ms <= core->now_ms;
    buf_printf(out, " %s %" PRIu64 " %s %s",
               !is_maint ? "set aside by reservation"
               : is_now  ? "in maintenance"
                         : "due for maintenance",
               res->row.id,
               is_now     ? "until"
               : is_maint ? "at"
                          : "from",
               when(core, is_now ? res->row.end_ms : res->row.start_ms, text, sizeof text));
}

static void put_holders(const struct core *core, const struct census *c, enum whereabouts kind,
                        struct buf *out)
{
    uint32_t rest = c->count[kind];
    for (uint32_t i = 0; i < c->holder_count; i++) {
        const struct holder *holder = &c->holders[i];
        if (holder->at == kind) {
            buf_printf(out, ", %" PRIu32, holder->count);
            put_holder(core, holder, out);
            rest -= holder->count;
        }
    }
    if (rest > 0) {
        buf_printf(out, ", %" PRIu32 " %s", rest,
                   kind == HELD ? "held for other jobs" : "in or due for other windows");
    }
}

static void put_counts(const struct core *core, const struct census *c, struct buf *out)
{
    static const char *const names[] = {
        [BUSY] = "busy",         [SPARE] = "kept as spare",
        [DRAINING] = "draining", [DRAINED] = "drained",
        [DOWN] = "down",         [SILENT] = "not connected",
        [FENCED] = "fenced",     [FAULTY] = "with ill accelerators",
        [SMALL] = "too small",
    };
    buf_printf(out, "%" PRIu32 " free", c->count[FREE]);
    for (int kind = FREE + 1; kind < KINDS; kind++) {
        if (c->count[kind] == 0) {
            continue;
        }
        if (kind == HELD || kind == WINDOW || kind == MAINTENANCE) {
            put_holders(core, c, (enum whereabouts)kind, out);
            if (kind == MAINTENANCE) {
                put_names(out, c, MAINTENANCE);
            }
            continue;
        }
        buf_printf(out, ", %" PRIu32 " %s", c->count[kind], names[kind]);
        if (kind == FAULTY) {
            put_faulty(out, c);
        } else if (kind != BUSY) {
            put_names(out, c, (enum whereabouts)kind);
        }
    }
}

static void put_needs(const struct job *job, struct buf *out)
{
    buf_printf(out, "needs %" PRId64 " node%s", job->row.nodes_min,
               job->row.nodes_min == 1 ? "" : "s");
    if (job->row.gpus_per_node > 0) {
        buf_printf(out, " with %" PRId64 " free accelerator%s each", job->row.gpus_per_node,
                   job->row.gpus_per_node == 1 ? "" : "s");
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
    census_take(core, job, &c);
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
    int64_t there = (int64_t)c.count[FREE] + c.count[HELD] + c.count[WINDOW] + c.count[BUSY] +
                    c.count[SPARE] + c.partly_ill;
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

static bool is_planned_on(const struct job *job, const struct attempt *attempt)
{
    for (uint32_t k = 0; k < job->wait.node_count; k++) {
        for (uint32_t i = 0; i < attempt->node_count; i++) {
            if (attempt->nodes[i].node == job->wait.nodes[k]) {
                return true;
            }
        }
    }
    return false;
}

/* Those that stop for others, where this one is planned to start: how many, and the first. */
static uint32_t count_victims(const struct core *core, const struct job *job,
                              const struct job **first)
{
    uint32_t stopping = 0;
    for (size_t i = 0; i < core->running_count; i++) {
        const struct job *other = core->running[i];
        if (other->row.stop_cause != NULL && strcmp(other->row.stop_cause, "preempt") == 0 &&
            (job->wait.code == WAIT_PREEMPTION || is_planned_on(job, other->attempt))) {
            stopping++;
            *first = *first == NULL || other->row.id < (*first)->row.id ? other : *first;
        }
    }
    return stopping;
}

/* False when nobody stops for it. */
static bool explain_preemption(const struct core *core, const struct job *job, struct buf *out)
{
    const struct job *first = NULL;
    uint32_t stopping = count_victims(core, job, &first);
    char text[40];
    if (stopping == 0) {
        return false;
    }
    buf_printf(out,
               "starts when %" PRIu32 " job%s saved and stopped for it, first job %" PRIu64
               " (%s), by %s at the latest",
               stopping, stopping == 1 ? " has" : "s have", first->row.id, first->row.name,
               when(core, job->wait.start_ms, text, sizeof text));
    return true;
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
    case WAIT_RESOURCES: /* a pass after they were asked finds the nodes as good as free */
        return explain_preemption(core, job, out) ? "preemption" : explain_fit(core, job, out);
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
