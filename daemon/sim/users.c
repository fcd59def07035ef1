/* People. Each submits with a key and tries again with it until somebody answers; whoever was
 * answered once must get the same job for ever. Others cancel, hold, release, drain, resume and
 * find that a checkpoint is corrupt. */
#include "daemon/sim/sim.h"

#include <stdio.h>
#include <string.h>

#include "lib/err.h"
#include "proto/jobspec.h"

static reply_token new_token(struct sim *sim, int kind, uint64_t who)
{
    reply_token token = ++sim->next_token;
    sim_origin(sim, token, kind, who, 0);
    return token;
}

static void submit(struct sim *sim, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct request *r = &sim->requests[index];
    if (r->state == PENDING_ACKED && !sim_chance(sim, 0.05)) { /* now and then one asks once more */
        return;
    }
    static char name[] = "sim", account[] = "a", stage[] = "pretrain", queue[] = "default";
    struct jobspec spec = {.name = name,
                           .account = account,
                           .stage = stage,
                           .queue = queue,
                           .priority = r->priority,
                           .nodes_min = r->nodes,
                           .nodes_max = r->nodes,
                           .gpus_per_node = r->gpus,
                           .has_train = r->has_train,
                           .train = {.steps = r->steps},
                           .checkpoint = {.keep = r->keep},
                           .restart_max = 3,
                           .time_limit_ms = index % 7 == 6 ? 300000 : 0};
    char key[32], text[32];
    snprintf(key, sizeof key, "key-%d", (int)index);
    snprintf(text, sizeof text, "%d", (int)index);
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = text,
                                        .workdir = "/",
                                        .user = "u",
                                        .key = key,
                                        .request_hash = key};
    in.token = new_token(sim, ORIGIN_SUBMIT, index);
    if (sim->now_ms >= sim->coord_frozen_until_ms) {
        coord_input(sim, &in);
    }
    if (r->state == PENDING_NONE) {
        r->state = PENDING_SENT;
    }
    sim_after(sim, sim_between(sim, 3000, 20000), submit, index, 0, NULL);
}

static void submitted(struct sim *sim, uint64_t index, int code, uint64_t id)
{
    struct request *r = &sim->requests[index];
    if (code == ERR_INVALID) {
        return; /* too few nodes have registered yet; asked again later */
    }
    if (code != 0) {
        sim_fail(sim, "submit %d is refused: %s", (int)index, err_text(code));
    }
    if (r->state == PENDING_ACKED && r->job != id) {
        sim_fail(sim, "submit %d was job %d, and now is job %d", (int)index, (int)r->job, (int)id);
    }
    for (int i = 0; i < sim->options.jobs; i++) {
        if (i != (int)index && sim->requests[i].state == PENDING_ACKED &&
            sim->requests[i].job == id) {
            sim_fail(sim, "submits %d and %d are one job, %d", (int)index, i, (int)id);
        }
    }
    sim_trace(sim, "submit %d is job %d", (int)index, (int)id);
    r->state = PENDING_ACKED;
    r->job = id;
}

/* ---- operators */
static uint64_t any_job(struct sim *sim)
{
    const struct request *r = &sim->requests[sim_roll(sim, (uint64_t)sim->options.jobs)];
    return r->job;
}

static void job_order(struct sim *sim, enum input_kind kind, uint64_t job)
{
    if (job == 0) {
        return;
    }
    struct input in = {.kind = kind, .token = new_token(sim, ORIGIN_OTHER, 0)};
    in.u.job.job = job;
    in.u.job.user = "op";
    sim_trace(sim, "operator: order %d about job %d", (int)kind, (int)job);
    coord_input(sim, &in);
}

static void close_drain(struct sim *sim, int node)
{
    struct node_op *op = &sim->node_ops[node];
    if (op->drain >= 0) {
        sim->drains[op->drain].to_ms = coord_now_ms(sim);
        op->drain = -1;
    }
}

static void node_order(struct sim *sim, int node, bool drain)
{
    struct node_op *op = &sim->node_ops[node];
    if (op->pending || !sim->coord_up) {
        return;
    }
    if (!drain) {
        close_drain(sim, node); /* from the asking on nothing is promised */
    }
    op->pending = true;
    op->draining = drain;
    struct input in = {.kind = drain ? INPUT_NODE_DRAIN : INPUT_NODE_RESUME};
    in.token = new_token(sim, drain ? ORIGIN_DRAIN : ORIGIN_RESUME, (uint64_t)node);
    in.u.node.name = sim->workers[node].name;
    in.u.node.user = "op";
    in.u.node.reason = "dust";
    sim_trace(sim, "operator: %s %s", drain ? "drain" : "resume", sim->workers[node].name);
    coord_input(sim, &in);
}

static void node_replied(struct sim *sim, int kind, int node, int code)
{
    struct node_op *op = &sim->node_ops[node];
    op->pending = false;
    if (kind == ORIGIN_DRAIN && code == 0 && op->drain < 0 && sim->drain_count < 256) {
        op->drain = (int)sim->drain_count;
        sim->drains[sim->drain_count++] = (struct drain){node, coord_now_ms(sim), INT64_MAX};
    }
}

static void operate(struct sim *sim, uint64_t a, uint64_t b, void *payload)
{
    (void)payload;
    if (sim->calm) {
        return;
    }
    sim_after(sim, sim_wait(sim, sim->options.operator_ms), operate, a, b, NULL);
    if (sim->now_ms < sim->coord_frozen_until_ms) {
        return;
    }
    int node = (int)sim_roll(sim, (uint64_t)sim->options.nodes);
    struct input in = {.kind = INPUT_CKPT_VERIFIED};
    switch (sim_roll(sim, 8)) {
    case 0:
        job_order(sim, INPUT_JOB_CANCEL, any_job(sim));
        break;
    case 1:
        job_order(sim, INPUT_JOB_HOLD, any_job(sim));
        break;
    case 2:
    case 3:
        job_order(sim, INPUT_JOB_RELEASE, any_job(sim));
        break;
    case 4:
        node_order(sim, node, true);
        break;
    case 5:
    case 6:
        node_order(sim, node, false);
        break;
    default:
        in.token = new_token(sim, ORIGIN_OTHER, 0);
        in.u.ckpt.ckpt = 1 + sim_roll(sim, 60);
        in.u.ckpt.text = "a flipped bit";
        coord_input(sim, &in);
    }
}

/* When the faults have stopped somebody cleans up: whatever is held is released, whatever is
 * drained is resumed. */
static void clean_up(struct sim *sim, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    for (int i = 0; i < sim->options.jobs; i++) {
        if (sim->requests[i].state == PENDING_ACKED) {
            job_order(sim, INPUT_JOB_RELEASE, sim->requests[i].job);
        }
    }
    for (int i = 0; i < sim->options.nodes; i++) {
        node_order(sim, i, false);
    }
    sim_after(sim, 30000, clean_up, 0, 0, NULL);
}

void users_calm(struct sim *sim)
{
    clean_up(sim, 0, 0, NULL);
}

void users_replied(struct sim *sim, int kind, uint64_t who, int code, uint64_t id)
{
    if (kind == ORIGIN_SUBMIT) {
        submitted(sim, who, code, id);
    } else if (kind == ORIGIN_DRAIN || kind == ORIGIN_RESUME) {
        node_replied(sim, kind, (int)who, code);
    }
}

void users_coord_crashed(struct sim *sim)
{
    for (int i = 0; i < sim->options.nodes; i++) {
        sim->node_ops[i].pending = false; /* nobody will answer */
    }
}

void users_start(struct sim *sim)
{
    for (int i = 0; i < sim->options.nodes; i++) {
        sim->node_ops[i].drain = -1;
    }
    for (int i = 0; i < sim->options.jobs; i++) {
        struct request *r = &sim->requests[i];
        r->nodes = (uint32_t)sim_between(sim, 1, sim->options.nodes > 3 ? 3 : sim->options.nodes);
        r->has_train = sim_chance(sim, 0.7);
        r->gpus = (uint32_t)sim_between(sim, r->has_train ? 1 : 0, sim->options.gpus);
        r->steps = (uint64_t)sim_between(sim, 1, r->has_train ? 200 : 30);
        r->save_every = (uint64_t)sim_between(sim, 3, 20);
        r->keep = (uint32_t)sim_between(sim, 1, 3);
        r->priority = sim_between(sim, -1, 1);
        sim_after(sim, sim_between(sim, 0, sim->options.fault_phase_ms * 2 / 3), submit,
                  (uint64_t)i, 0, NULL);
    }
    sim_after(sim, sim_wait(sim, sim->options.operator_ms), operate, 0, 0, NULL);
}
