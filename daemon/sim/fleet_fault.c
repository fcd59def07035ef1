/* Faults come as a Poisson process: the sum of all rates over all nodes says when, the shares say
 * which, and every node is as likely as another. The next one is drawn ahead, so that a gang knows
 * which of its checkpoints will matter. */
#include <stdlib.h>

#include "daemon/sim/fleet_state.h"
#include "daemon/sim/rng.h"
#include "lib/mem.h"

#define DAY_MS              86400000.0
#define COLLECTIVE_GIVES_UP 60000 /* ranks whose peer is gone notice it by themselves */

static void strike(struct fleet *f, uint64_t a, uint64_t b, void *payload);

static double rate_of(const struct fleet *f, const struct fleet_fault *fault)
{
    return fault->kind == FAULT_COORDINATOR ? fault->per_day
                                            : fault->per_node_day * f->setup->nodes;
}

static double all_rates(const struct fleet *f)
{
    double rate = 0;
    for (size_t i = 0; i < f->setup->fault_count; i++) {
        rate += rate_of(f, &f->setup->faults[i]);
    }
    return rate;
}

static void draw_next(struct fleet *f)
{
    double rate = all_rates(f);
    int64_t wait_ms = rng_wait(&f->rng, rate > 0 ? DAY_MS / rate : 0);
    f->next_fault_ms = f->now_ms + wait_ms;
    if (rate > 0) {
        fleet_after(f, wait_ms, strike, 0, 0);
    }
}

static struct fleet_fault *draw_kind(struct fleet *f)
{
    double at = rng_unit(&f->rng) * all_rates(f);
    for (size_t i = 0; i + 1 < f->setup->fault_count; i++) {
        at -= rate_of(f, &f->setup->faults[i]);
        if (at <= 0) {
            return &f->setup->faults[i];
        }
    }
    return &f->setup->faults[f->setup->fault_count - 1];
}

/* One of the parts at work on the node; all kinds but the loss of a machine hit one process. */
static struct fgang *victim(struct fleet *f, const struct fnode *node, uint32_t *part)
{
    size_t count = 0, wanted;
    struct fgang *found = NULL;
    for (size_t i = 0; i < node->part_count; i++) {
        count += gang_of(f, node->parts[i].gang) != NULL;
    }
    if (count == 0) {
        return NULL;
    }
    wanted = (size_t)rng_roll(&f->rng, count);
    for (size_t i = 0; i < node->part_count; i++) {
        struct fgang *gang = gang_of(f, node->parts[i].gang);
        if (gang != NULL && wanted-- == 0) {
            found = gang;
            *part = node->parts[i].part;
        }
    }
    return found->parts[*part].state != PART_ENDED ? found : NULL;
}

/* ---- the machine is gone */
static void notice_loss(struct fleet *f, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    for (uint32_t i = 0; gang != NULL && i < gang->part_count; i++) {
        if (!gang->parts[i].gone) {
            part_end(f, gang, i, COLLECTIVE_ABORT, 0);
        }
    }
    if (gang != NULL) {
        gang_settle(f, gang);
    }
}

static void come_back(struct fleet *f, uint64_t index, uint64_t boots, void *payload)
{
    (void)payload;
    struct fnode *node = &f->nodes[index];
    if (!node->up && (uint64_t)node->boots == boots) {
        fleet_trace(f, "%s comes back", node->name);
        node->up = true;
        node->broken_gpu = -1;
        node_connect(f, node);
    }
}

/* Heartbeats are left out until they matter. */
static void last_sign(struct fleet *f, const struct fnode *node)
{
    if (node->session != 0) {
        struct input in = {.kind = INPUT_HEARTBEAT, .session = node->session};
        fleet_input(f, &in);
    }
}

static bool lose_machine(struct fleet *f, struct fnode *node, const struct fleet_fault *fault)
{
    bool hit = false;
    last_sign(f, node);
    node->session = 0;
    node->up = false;
    node->boots++;
    for (size_t i = 0; i < node->part_count; i++) {
        struct fgang *gang = gang_of(f, node->parts[i].gang);
        if (gang == NULL) {
            continue;
        }
        hit |= gang->state != GANG_DONE;
        struct fpart *part = &gang->parts[node->parts[i].part];
        gang_halt(f, gang);
        gang_tell(f, gang, gang->halted_ms);
        part->gone = true;
        fleet_after(f, COLLECTIVE_GIVES_UP, notice_loss, gang->index, 0);
    }
    node->part_count = 0;
    fleet_after(f, fault->repair_ms, come_back, (uint64_t)(node - f->nodes), (uint64_t)node->boots);
    return hit;
}

/* ---- a process dies */
static void repaired(struct fleet *f, uint64_t index, uint64_t boots, void *payload)
{
    (void)payload;
    struct fnode *node = &f->nodes[index];
    if (node->up && (uint64_t)node->boots == boots && node->broken_gpu >= 0) {
        fleet_trace(f, "%s: the accelerator is repaired", node->name);
        node->broken_gpu = -1;
        node_announce(f, node);
    }
}

struct noticed { /* a fault whose first sign is on its way */
    uint64_t gang;
    uint32_t part, node;
    int gpu; /* broken; -1: none */
    int boots;
    int64_t repair_ms;
    int32_t code, signal;
};

static void notice(struct fleet *f, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    struct noticed n = *(struct noticed *)payload;
    free(payload);
    struct fnode *node = &f->nodes[n.node];
    if (n.gpu >= 0 && node->up && node->boots == n.boots && node->broken_gpu < 0) {
        node->broken_gpu = n.gpu;
        node_announce(f, node); /* before the exit, so that nothing starts there again */
        fleet_after(f, n.repair_ms, repaired, n.node, (uint64_t)n.boots);
    }
    struct fgang *gang = n.gang != UINT64_MAX ? gang_of(f, n.gang) : NULL;
    if (gang != NULL && !gang->parts[n.part].gone) {
        gang_tell(f, gang, gang->halted_ms);
        part_end(f, gang, n.part, n.code, n.signal);
        gang_settle(f, gang);
    }
}

static bool break_process(struct fleet *f, struct fnode *node, const struct fleet_fault *fault)
{
    uint32_t part = 0;
    struct fgang *gang = victim(f, node, &part);
    bool is_gpu = fault->kind == FAULT_GPU;
    if (gang == NULL && !is_gpu) {
        return false;
    }
    bool hit = gang != NULL && gang->state != GANG_DONE && gang->state != GANG_HALTED;
    struct noticed *n = mem_alloc(sizeof *n);
    *n = (struct noticed){.gang = hit ? gang->index : UINT64_MAX,
                          .part = part,
                          .node = (uint32_t)(node - f->nodes),
                          .gpu = is_gpu ? (int)rng_roll(&f->rng, f->setup->gpus) : -1,
                          .boots = node->boots,
                          .repair_ms = fault->repair_ms,
                          .code = fault->kind == FAULT_NETWORK ? COLLECTIVE_ABORT : -1,
                          .signal = fault->kind == FAULT_NETWORK ? 0 : 9};
    if (hit) {
        gang_halt(f, gang);
    }
    heap_add(&f->heap, f->now_ms + fault->detect_ms, (void (*)(void))(fleet_fn)notice, 0, 0, n);
    return hit;
}

/* ---- a program is away, and its ranks go on */
static void worker_back(struct fleet *f, uint64_t index, uint64_t boots, void *payload)
{
    (void)payload;
    struct fnode *node = &f->nodes[index];
    if ((uint64_t)node->boots == boots) {
        node_connect(f, node);
    }
}

static bool lose_program(struct fleet *f, struct fnode *node, struct fleet_fault *fault)
{
    if (fault->kind == FAULT_COORDINATOR) {
        fault->hits += f->core != NULL;
        fleet_crash(f, fault->repair_ms);
        return true;
    }
    if (fault->kind != FAULT_WORKER) {
        return false;
    }
    if (node->session != 0) {
        fleet_trace(f, "%s: %s", node->name, fault->name);
        fault->hits++;
        last_sign(f, node);
        struct input in = {.kind = INPUT_WORKER_GONE, .session = node->session};
        fleet_input(f, &in);
        node->session = 0;
        fleet_after(f, fault->repair_ms, worker_back, (uint64_t)(node - f->nodes),
                    (uint64_t)node->boots);
    }
    return true;
}

static void strike(struct fleet *f, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    struct fleet_fault *fault = draw_kind(f);
    struct fnode *node = &f->nodes[rng_roll(&f->rng, f->setup->nodes)];
    if (!lose_program(f, node, fault) && node->up) {
        bool hit = fault->kind == FAULT_NODE ? lose_machine(f, node, fault)
                                             : break_process(f, node, fault);
        fleet_trace(f, "%s: %s%s", node->name, fault->name, hit ? "" : ", no job is hit");
        fault->hits += hit;
        f->result->failures += hit;
        fleet_note(f, (uint64_t)(fault - f->setup->faults), (uint64_t)(node - f->nodes));
    }
    draw_next(f);
}

void faults_begin(struct fleet *f)
{
    f->next_fault_ms = INT64_MAX / 2;
    if (f->setup->fault_count > 0) {
        draw_next(f);
    }
}
