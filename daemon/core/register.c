/* A worker comes (back). It says who it is, which accelerators it has and, completely, which
 * attempts it knows; the coordinator adopts what is still its own, disowns the rest, and orders
 * again everything that follows from its state. */
#include "daemon/core/register.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/ledger.h"
#include "daemon/core/node.h"
#include "daemon/core/reservation.h"
#include "daemon/core/topology.h"
#include "lib/err.h"
#include "lib/mem.h"

#define NODE_NAME_MAX 255

static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > NODE_NAME_MAX || name[0] == '-' || name[0] == '.') {
        return false;
    }
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    return strspn(name, allowed) == len;
}

/* Refuses what cannot be right. */
static bool check(struct core *core, const struct input *in)
{
    const struct input_register *reg = &in->u.reg;
    if (!name_is_valid(reg->name)) {
        core_reply(core, in, ERR_INVALID,
                   "node name refused: use letters, digits, '-', '.' and '_', at most %d of them",
                   NODE_NAME_MAX);
        return false;
    }
    if (reg->term_seen > core->term) {
        core_reply(core, in, ERR_STALE,
                   "node %s has obeyed a coordinator of term %" PRIu64
                   ", this one has term %" PRIu64
                   ": it runs on an old copy of the database (stop it and use the newest)",
                   reg->name, reg->term_seen, core->term);
        return false;
    }
    if (reg->gpu_count > NODE_GPUS_MAX) {
        core_reply(core, in, ERR_INVALID,
                   "node %s lists %zu accelerators, at most %d are known here", reg->name,
                   reg->gpu_count, NODE_GPUS_MAX);
        return false;
    }
    for (size_t i = 0; i < reg->gpu_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (reg->gpus[i].index == reg->gpus[j].index) {
                core_reply(core, in, ERR_INVALID, "node %s lists accelerator %" PRIu32 " twice",
                           reg->name, reg->gpus[i].index);
                return false;
            }
        }
    }
    return true;
}

static struct node *find_or_create(struct core *core, const char *name)
{
    struct node *node = core_node_by_name(core, name);
    if (node != NULL) {
        return node;
    }
    node = mem_alloc(sizeof *node);
    void *nodes = core->nodes;
    mem_grow(&nodes, &core->node_capacity, core->node_count + 1, sizeof *core->nodes);
    core->nodes = nodes;
    core->nodes[core->node_count++] = node;
    node->row.id = core->node_count;
    node->row.state = NODE_UP;
    row_set_text(&node->row.name, name);
    node->row.since_ms = node->row.first_seen_ms = node->row.last_seen_ms = core->now_ms;
    core_node_index(core, node);
    topology_apply(core, node);
    reservation_add_node(core, node);
    return node;
}

static struct gpu *gpu_of(const struct node *node, int64_t idx)
{
    for (size_t i = 0; i < node->gpu_count; i++) {
        if (node->gpus[i]->row.idx == idx) {
            return node->gpus[i];
        }
    }
    return NULL;
}

void node_add_gpu(struct node *node, struct gpu *gpu)
{
    void *gpus = node->gpus;
    mem_grow(&gpus, &node->gpu_capacity, node->gpu_count + 1, sizeof *node->gpus);
    node->gpus = gpus;
    size_t at = node->gpu_count++;
    while (at > 0 && node->gpus[at - 1]->row.idx > gpu->row.idx) {
        node->gpus[at] = node->gpus[at - 1];
        at--;
    }
    node->gpus[at] = gpu;
    gpu->node = node;
}

static struct gpu *gpu_create(struct core *core, struct node *node, const struct input_gpu *seen)
{
    struct gpu *gpu = mem_alloc(sizeof *gpu);
    void *gpus = core->gpus;
    mem_grow(&gpus, &core->gpu_capacity, core->gpu_count + 1, sizeof *core->gpus);
    core->gpus = gpus;
    core->gpus[core->gpu_count++] = gpu;
    gpu->row.id = core->gpu_count;
    gpu->row.node_id = node->row.id;
    gpu->row.idx = seen->index;
    gpu->row.first_seen_ms = core->now_ms;
    row_set_text(&gpu->row.model, seen->model);
    node_add_gpu(node, gpu);
    meter_open(core, gpu, CATEGORY_IDLE);
    return gpu;
}

static bool is_listed(const struct input_register *reg, int64_t idx)
{
    for (size_t i = 0; i < reg->gpu_count; i++) {
        if (reg->gpus[i].index == idx) {
            return true;
        }
    }
    return false;
}

static void set_health(struct core *core, struct node *node, struct gpu *gpu, const char *health)
{
    const char *was = gpu->row.health != NULL ? gpu->row.health : "ok";
    if (strcmp(was, health) != 0) {
        core_event(core, "gpu.health", gpu->allocation != NULL ? gpu->allocation->row.job_id : 0, 0,
                   node->row.id, "accelerator %" PRId64 " of node %s: %s, was %s", gpu->row.idx,
                   node->row.name, health, was);
    }
    row_set_text(&gpu->row.health, health);
}

static void adopt_gpus(struct core *core, struct node *node, const struct input_register *reg)
{
    for (size_t i = 0; i < reg->gpu_count; i++) {
        const struct input_gpu *seen = &reg->gpus[i];
        struct gpu *gpu = gpu_of(node, seen->index);
        if (gpu == NULL) {
            gpu = gpu_create(core, node, seen);
        } else if (strcmp(gpu->row.model, seen->model) != 0) {
            meter_set_model(core, gpu, seen->model);
        }
        row_set_text(&gpu->row.uuid, seen->uuid);
        set_health(core, node, gpu, seen->health != NULL ? seen->health : "ok");
        gpu->row.memory_bytes = (int64_t)seen->memory_bytes;
        gpu->row.present = true;
        core_mark(core, TABLE_GPU, &gpu->row);
    }
    for (size_t i = 0; i < node->gpu_count; i++) {
        struct gpu *gpu = node->gpus[i];
        if (gpu->row.present && !is_listed(reg, gpu->row.idx)) {
            gpu->row.present = false;
            core_mark(core, TABLE_GPU, &gpu->row);
            core_event(core, "gpu.missing", 0, 0, node->row.id,
                       "accelerator %" PRId64 " of node %s is not there any more", gpu->row.idx,
                       node->row.name);
        }
    }
}

static const struct input_attempt_report *find_report(const struct input_register *reg,
                                                      uint64_t job, uint64_t epoch)
{
    for (size_t i = 0; i < reg->attempt_count; i++) {
        if (reg->attempts[i].job == job && reg->attempts[i].epoch == epoch) {
            return &reg->attempts[i];
        }
    }
    return NULL;
}

static void adopt_attempts(struct core *core, struct node *node, const struct input_register *reg)
{
    node->leftover_count = 0;
    for (size_t i = 0; i < reg->attempt_count; i++) {
        const struct input_attempt_report *report = &reg->attempts[i];
        if (attempt_find_node(core, node, report->job, report->epoch) != NULL) {
            continue;
        }
        attempt_refuse_report(core, node, report);
        if (report->phase != 3) {
            node_add_leftover(node, report->job, report->epoch);
        }
    }
    /* Applying a report may end parts of attempts, also the next one in the list: so start over
     * after each. */
    for (struct attempt_node *an = node->first; an != NULL; an = an->next) {
        an->seen = false;
    }
    for (struct attempt_node *an = node->first; an != NULL;) {
        if (an->seen) {
            an = an->next;
            continue;
        }
        an->seen = true;
        const struct input_attempt_report *report = find_report(reg, an->row.job_id, an->row.epoch);
        if (report != NULL) {
            attempt_apply_report(core, an, report);
        } else {
            attempt_not_listed(core, an);
        }
        an = node->first;
    }
    for (struct attempt_node *an = node->first; an != NULL; an = an->next) {
        attempt_redrive(core, an);
    }
}

void node_register(struct core *core, const struct input *in)
{
    const struct input_register *reg = &in->u.reg;
    if (!check(core, in)) {
        effect_list_add(&core->effects, EFFECT_DROP_SESSION, in->session);
        return;
    }
    if (in->session == 0) {
        return; /* nobody to order anything */
    }
    bool is_new = core_node_by_name(core, reg->name) == NULL;
    struct node *node = find_or_create(core, reg->name);
    struct node *other = core_node_of_session(core, in->session);
    if (other != NULL && other != node) {
        other->session = 0; /* one connection, two names: the newest counts */
    }
    if (node->session != 0 && node->session != in->session) {
        map_remove(&core->sessions, node->session);
        effect_list_add(&core->effects, EFFECT_DROP_SESSION, node->session);
    }
    bool came = node->session != in->session;
    node->row.last_seen_ms =
        is_new ? core->now_ms : node->seen_ms; /* until its attempts are seen to */
    node->session = in->session;
    map_set(&core->sessions, in->session, node);
    node_seen(core, node);
    row_set_text(&node->row.addr, reg->addr);
    row_set_text(&node->row.version, reg->version);
    row_set_text(&node->row.boot_id, reg->boot_id);
    core_mark(core, TABLE_NODE, &node->row);
    core_reply(core, in, 0, "%s", "");
    adopt_gpus(core, node, reg);
    node_recount(node);
    core->nodes_version++;
    if (is_new) {
        core_event(core, "node.registered", 0, 0, node->row.id,
                   "node %s joined with %zu accelerators", reg->name, reg->gpu_count);
    } else if (came) {
        core_event(core, "node.connected", 0, 0, node->row.id, "node %s is connected again",
                   reg->name);
    }
    adopt_attempts(core, node, reg);
    node->row.last_seen_ms = core->now_ms;
    node_settle(core, node);
    ckpt_redrive(core, node);
}
