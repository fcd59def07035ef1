#include "daemon/core/node.h"

#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/ledger.h"
#include "lib/err.h"
#include "lib/mem.h"

bool node_is_usable(const struct node *node)
{
#ifdef MUTANT_drain_ignored
    if (node->row.state == NODE_DRAINED && node->session != 0) {
        return true;
    }
#endif
    return node->row.state == NODE_UP && node->session != 0 && node->leftover_count == 0;
}

/* Its health is "ok" alone, or with what is worth saying (worker/gpu_facts.h). */
bool gpu_is_well(const struct gpu *gpu)
{
    const char *health = gpu->row.health;
    return gpu->row.present && strncmp(health, "ok", 2) == 0 &&
           (health[2] == 0 || health[2] == ':');
}

bool gpu_is_free(const struct gpu *gpu)
{
#ifdef MUTANT_double_allocation
    if (gpu->allocation != NULL && gpu->row.id % 3 == 0) {
        return true;
    }
#endif
    return gpu->allocation == NULL && gpu_is_well(gpu);
}

void node_recount(struct node *node)
{
    node->present = node->healthy = node->free = 0;
    for (size_t i = 0; i < node->gpu_count; i++) {
        node->free += gpu_is_free(node->gpus[i]);
        node->present += node->gpus[i]->row.present;
        node->healthy += gpu_is_well(node->gpus[i]);
    }
}

uint32_t node_free_gpus(const struct node *node)
{
    return node->free;
}

uint32_t node_capacity(const struct node *node)
{
    return node->present;
}

/* ---------------------------------------------------------------- states */

static void set_state(struct core *core, struct node *node, enum node_state state, const char *why)
{
    if (node->row.state == state) {
        return;
    }
    node->row.state = state;
    node->row.since_ms = core->now_ms;
    node->row.last_seen_ms = node->seen_ms;
    if (node->row.by_user == NULL) {
        row_set_text(&node->row.reason, state == NODE_UP ? NULL : why);
    }
    core_mark(core, TABLE_NODE, &node->row);
    core->sched_due = true;
    static const char *const kinds[] = {"node.up",   "node.draining", "node.drained",
                                        "node.down", "node.fencing",  "node.maint"};
    core_event(core, kinds[state], 0, 0, node->row.id, "node %s is %s: %s", node->row.name,
               node_state_names[state], why);
}

static enum category free_category(const struct gpu *gpu)
{
    switch (gpu->node->row.state) {
    case NODE_DRAINING:
    case NODE_DRAINED:
    case NODE_MAINT:
        return CATEGORY_PLANNED_DOWN;
    case NODE_DOWN:
    case NODE_FENCING:
        return CATEGORY_DOWN;
    case NODE_UP:
    default:
        return !gpu_is_free(gpu)               ? CATEGORY_DOWN
               : gpu->node->row.spare_job != 0 ? CATEGORY_HELD
                                               : CATEGORY_IDLE;
    }
}

/* A spare is paid for by the job that keeps it, outside of its attempts. */
static void book_free(struct core *core, struct gpu *gpu, int64_t kept_ms)
{
    enum category category = free_category(gpu);
    uint64_t job = category == CATEGORY_HELD ? gpu->node->row.spare_job : 0;
    meter_switch(core, gpu, category, job, 0, kept_ms);
}

static void book_all_free(struct core *core, struct node *node)
{
    for (size_t i = 0; i < node->gpu_count; i++) {
        if (node->gpus[i]->allocation == NULL) {
            book_free(core, node->gpus[i], INT64_MAX);
        }
    }
}

void node_free_gpu(struct core *core, struct gpu *gpu, int64_t kept_ms)
{
    gpu->allocation = NULL;
    node_recount(gpu->node);
    book_free(core, gpu, kept_ms);
}

void node_set_spare(struct core *core, struct node *node, uint64_t job)
{
    if (node->row.spare_job != job) {
        node->row.spare_job = job;
        core_mark(core, TABLE_NODE, &node->row);
        book_all_free(core, node);
        core->sched_due = true;
    }
}

void node_free_spares(struct core *core, uint64_t job_id)
{
    const struct job *job = core_job(core, job_id);
    if (job == NULL || job->row.spares == 0) {
        return;
    }
    for (size_t i = 0; i < core->node_count; i++) {
        if (core->nodes[i]->row.spare_job == job_id) {
            node_set_spare(core, core->nodes[i], 0);
        }
    }
}

void node_settle(struct core *core, struct node *node)
{
    const char *drain = node->row.reason != NULL ? node->row.reason : "drained";
    if (node->session != 0 && node->leftover_count > 0) {
        set_state(core, node, NODE_FENCING, "ranks of an attempt that is over still run there");
    } else if (node->row.by_user != NULL) {
        /* A fenced node must come back before it counts as drained. */
        if (node->row.state != NODE_FENCING || node->session != 0) {
            set_state(core, node, node->first != NULL ? NODE_DRAINING : NODE_DRAINED, drain);
        }
    } else if (node->maint > 0 && (node->row.state != NODE_FENCING || node->session != 0)) {
        set_state(core, node, node->first != NULL ? NODE_DRAINING : NODE_MAINT, "maintenance");
    } else if (node->session != 0) {
        set_state(core, node, NODE_UP, "registered and free of old ranks");
    } else if (node->row.state == NODE_MAINT || node->row.state == NODE_DRAINING) {
        /* Its maintenance is over, its worker is not back. */
        set_state(core, node, node->watched ? NODE_UP : NODE_DOWN, "its worker is not connected");
    }
    book_all_free(core, node);
    core->sched_due = true;
}

void node_add_leftover(struct node *node, uint64_t job, uint64_t epoch)
{
    void *leftovers = node->leftovers;
    mem_grow(&leftovers, &node->leftover_capacity, node->leftover_count + 1,
             sizeof *node->leftovers);
    node->leftovers = leftovers;
    node->leftovers[node->leftover_count++] = (struct leftover){.job = job, .epoch = epoch};
}

void node_leftover_ended(struct core *core, struct node *node, uint64_t job, uint64_t epoch)
{
    for (size_t i = 0; i < node->leftover_count; i++) {
        if (node->leftovers[i].job == job && node->leftovers[i].epoch == epoch) {
            node->leftovers[i] = node->leftovers[--node->leftover_count];
            node_settle(core, node);
            return;
        }
    }
}

/* ---------------------------------------------------------------- leases */

void node_watch(struct core *core, struct node *node)
{
    if (!node->watched) {
        node->watched = true;
        timers_set(&core->timers, TIMER_NODE, node->row.id, node->lease_ms);
    }
}

void node_seen(struct core *core, struct node *node)
{
    node->seen_ms = core->now_ms;
    node->lease_ms = core->now_ms + core->config.lease_ms;
    node_watch(core, node);
}

static void disconnect(struct core *core, struct node *node)
{
    if (node->session != 0) {
        map_remove(&core->sessions, node->session);
        node->session = 0;
        node->row.last_seen_ms = node->seen_ms;
        core_mark(core, TABLE_NODE, &node->row);
        ckpt_reorder(core);
    }
}

/* Synchronous training proves the life of all its ranks: steps newer than the silence extend the
 * lease. */
static int64_t extended_lease(const struct core *core, const struct node *node)
{
    int64_t lease_ms = node->lease_ms;
    for (const struct attempt_node *an = node->first; an != NULL; an = an->next) {
        const struct job *job = an->attempt->job;
        int64_t step_lease_ms = job->row.step_at_ms + core->config.lease_ms;
        if (an->attempt->row.last_step != ROW_NONE && job->row.step_at_ms > node->seen_ms &&
            step_lease_ms > lease_ms) {
            lease_ms = step_lease_ms;
        }
    }
    return lease_ms;
}

void node_timer(struct core *core, uint64_t id)
{
    struct node *node = core_node(core, id);
    node->watched = false;
    node->lease_ms = extended_lease(core, node);
    if (node->lease_ms > core->now_ms) {
        node_watch(core, node);
        return;
    }
    if (node->session != 0) {
        effect_list_add(&core->effects, EFFECT_DROP_SESSION, node->session);
        disconnect(core, node);
    }
    char why[128];
    snprintf(why, sizeof why, "silent for %.1f s", (double)(core->now_ms - node->seen_ms) / 1000);
    if (node->first != NULL) {
        set_state(core, node, NODE_FENCING, why);
        while (node->first != NULL) {
            attempt_lost(core, node->first, node->seen_ms, why);
        }
    } else if (node->row.state == NODE_UP) {
        set_state(core, node, NODE_DOWN, why);
    }
    node_settle(core, node);
}

void node_heartbeat(struct core *core, const struct input *in)
{
    core_reply(core, in, 0, "%s", ""); /* core_step has renewed the lease of whoever sent this */
}

void node_gone(struct core *core, const struct input *in)
{
    struct node *node = core_node_of_session(core, in->session);
    if (node != NULL) {
        disconnect(core, node);
#ifdef MUTANT_lease_ignored
        while (node->first != NULL) {
            attempt_lost(core, node->first, node->seen_ms, "silent");
        }
#endif
        core_event(core, "node.disconnected", 0, 0, node->row.id,
                   "the worker of node %s is not connected; its ranks are trusted for %.0f s more",
                   node->row.name, (double)(node->lease_ms - core->now_ms) / 1000);
    }
}

/* ---------------------------------------------------------------- operators */

static struct node *find_named(struct core *core, const struct input *in)
{
    struct node *node = core_node_by_name(core, in->u.node.name);
    if (node == NULL) {
        core_reply(core, in, ERR_NOT_FOUND, "no node is named %s (dsctl node list)",
                   in->u.node.name);
    }
    return node;
}

void node_drain(struct core *core, const struct input *in)
{
    struct node *node = find_named(core, in);
    if (node == NULL) {
        return;
    }
    const char *user = in->u.node.user != NULL ? in->u.node.user : "unknown";
    row_set_text(&node->row.by_user, user);
    row_set_text(&node->row.reason, in->u.node.reason != NULL ? in->u.node.reason : "drained");
    core_mark(core, TABLE_NODE, &node->row);
    core_event(core, "node.drain", 0, 0, node->row.id, "%s drains node %s: %s", user,
               node->row.name, node->row.reason);
    node_settle(core, node);
    core_reply(core, in, 0, "%s", "");
}

void node_resume(struct core *core, const struct input *in)
{
    struct node *node = find_named(core, in);
    if (node == NULL) {
        return;
    }
    if (node->row.by_user == NULL) {
        if (node->row.state == NODE_UP) {
            core_reply(core, in, 0, "%s", "");
        } else {
            core_reply(core, in, ERR_CONFLICT,
                       "node %s is %s, not drained: it comes back when its worker does (start "
                       "dsworkerd there)",
                       node->row.name, node_state_names[node->row.state]);
        }
        return;
    }
    row_set_text(&node->row.by_user, NULL);
    row_set_text(&node->row.reason, NULL);
    core_mark(core, TABLE_NODE, &node->row);
    core_event(core, "node.resume", 0, 0, node->row.id, "%s resumes node %s",
               in->u.node.user != NULL ? in->u.node.user : "unknown", node->row.name);
    if (node->row.state != NODE_FENCING && node->session == 0) {
        if (node->watched) {
            set_state(core, node, NODE_UP, "resumed; its worker is expected back");
        } else {
            set_state(core, node, NODE_DOWN, "resumed, but its worker is not connected");
        }
    }
    node_settle(core, node);
    core_reply(core, in, 0, "%s", "");
}
