/* core_why: the one reason for which a job waits, the first that applies, with counts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/job_wait.h"
#include "daemon/core/node.h"
#include "daemon/core/sched.h"
#include "daemon/core/state.h"

/* Where the nodes are that a job could use. */
struct census {
    uint32_t total, too_small, unavailable, busy, room;
};

static struct census count_nodes(const struct core *core, const struct job *job)
{
    struct census c = {.total = (uint32_t)core->node_count};
    for (size_t i = 0; i < core->node_count; i++) {
        const struct node *node = core->nodes[i];
        if (node_capacity(node) < job->row.gpus_per_node) {
            c.too_small++;
        } else if (!node_is_usable(node)) {
            c.unavailable++;
        } else if (!sched_node_has_room(node, job->row.gpus_per_node)) {
            c.busy++;
        } else {
            c.room++;
        }
    }
    return c;
}

static void explain_fit(const struct core *core, const struct job *job, char *code,
                        size_t code_bytes, char *text, size_t text_bytes)
{
    struct census c = count_nodes(core, job);
    if (c.total == 0) {
        snprintf(code, code_bytes, "no_nodes");
        snprintf(text, text_bytes, "no node has ever registered (start dsworkerd on one)");
        return;
    }
    char each[64] = "";
    if (job->row.gpus_per_node > 0) {
        snprintf(each, sizeof each, " with %" PRId64 " free accelerators each",
                 job->row.gpus_per_node);
    }
    bool enough_but_busy = (int64_t)c.room + c.busy >= job->row.nodes_requested;
    snprintf(code, code_bytes, "%s", enough_but_busy ? "resources" : "nodes_unavailable");
    snprintf(text, text_bytes,
             "needs %" PRId64 " nodes%s: of %" PRIu32 " nodes %" PRIu32 " have room, %" PRIu32
             " are busy, %" PRIu32 " are not available (down, drained, fenced), %" PRIu32
             " are too small",
             job->row.nodes_requested, each, c.total, c.room, c.busy, c.unavailable, c.too_small);
}

static bool before(const struct job *a, const struct job *b)
{
    return a->row.priority != b->row.priority ? a->row.priority > b->row.priority
                                              : a->row.id < b->row.id;
}

bool core_why(const struct core *core, uint64_t id, char *code, size_t code_bytes, char *text,
              size_t text_bytes)
{
    const struct job *job = core_job(core, id);
    if (job == NULL || (job->row.state != JOB_PENDING && job->row.state != JOB_HELD &&
                        job->row.state != JOB_SUSPENDED)) {
        return false;
    }
    const char *why = job->row.reason_text != NULL ? job->row.reason_text : "no reason was given";
    if (job->row.state == JOB_HELD) {
        snprintf(code, code_bytes, "held");
        snprintf(text, text_bytes,
                 "held until somebody releases it (dsctl job release %" PRIu64 "): %s", id, why);
        return true;
    }
    if (job->row.state == JOB_SUSPENDED) {
        snprintf(code, code_bytes, "suspended");
        snprintf(text, text_bytes,
                 "suspended until somebody resumes it (dsctl job resume %" PRIu64 "): %s", id, why);
        return true;
    }
    if (!job->queued && job->need_count > 0) {
        snprintf(code, code_bytes, "dependency");
        job_wait_text(core, job, text, text_bytes);
        return true;
    }
    if (!job->queued && (job->row.reason_code == NULL || job->row.epoch == 0)) {
        char time[32];
        time_format(job->row.not_before_ms, time, sizeof time);
        snprintf(code, code_bytes, "not_before");
        snprintf(text, text_bytes, "is not to start before %s (not_before)", time);
        return true;
    }
    if (!job->queued) {
        snprintf(code, code_bytes, "backoff");
        snprintf(text, text_bytes,
                 "waits %.1f s more before restart %" PRId64 " (%" PRId64
                 " without a newer checkpoint): %s",
                 (double)(job->row.not_before_ms - core->now_ms) / 1000, job->row.restarts,
                 job->row.fruitless, why);
        return true;
    }
    size_t ahead = 0;
    const struct job *first = job;
    for (size_t i = 0; i < core->queue_count; i++) {
        const struct job *other = core->queue[i];
        if (before(other, job)) {
            ahead++;
            first = before(other, first) ? other : first;
        }
    }
    if (ahead == 0) {
        explain_fit(core, job, code, code_bytes, text, text_bytes);
        return true;
    }
    char first_code[32], first_text[512];
    explain_fit(core, first, first_code, sizeof first_code, first_text, sizeof first_text);
    snprintf(code, code_bytes, "queue");
    snprintf(text, text_bytes,
             "%zu job%s ahead; the first, %" PRIu64 " (%s) with priority %" PRId64 ", %s", ahead,
             ahead == 1 ? " is" : "s are", first->row.id, first->row.name, first->row.priority,
             first_text);
    return true;
}
