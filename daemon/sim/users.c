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
    if (r->state == PENDING_NONE) { /* whoever asks again asks for the same */
        bool has_id = r->after >= 0 && sim->requests[r->after].state == PENDING_ACKED;
        r->needs = has_id ? sim->requests[r->after].job : 0;
        r->not_before_ms = r->delay_ms > 0 ? coord_now_ms(sim) + r->delay_ms : 0;
        sim->counts.n[COUNT_DEPENDENCIES] += r->needs != 0;
    }
    static char names[][4] = {"sim", "sam"}, accounts[][2] = {"a", "b"}, stage[] = "pretrain";
    static char queue[] = "default";
    struct jobspec spec = {.name = names[r->singleton],
                           .account = accounts[index % 2],
                           .stage = stage,
                           .queue = queue,
                           .priority = r->priority,
                           .nodes_min = r->nodes,
                           .nodes_max = r->nodes_max,
                           .singleton = r->singleton,
                           .spares = r->spares,
                           .preemptible = r->may_stop ? BY_POLICY_YES : BY_POLICY_NO,
                           .min_runtime_ms = 5000,
                           .gpus_per_node = r->gpus,
                           .has_train = r->has_train,
                           .train = {.steps = r->steps},
                           .checkpoint = {.keep = r->keep},
                           .not_before = {.at_ms = r->not_before_ms},
                           .restart_max = (uint32_t)index % 4,
                           .time_limit_ms = index % 7 == 6 ? 300000 : 0};
    uint32_t members[SIM_ARRAY_MAX] = {0, 1, 2, 3};
    struct dependency needs = {.kind = r->need, .job = r->needs};
    if (r->array > 0) {
        spec.array = members;
        spec.array_count = r->array;
        spec.array_limit = (uint32_t)index % 3;
    }
    if (r->needs != 0) {
        spec.dependencies = &needs;
        spec.dependency_count = 1;
    }
    char key[32], text[32];
    snprintf(key, sizeof key, "key-%d", (int)index);
    snprintf(text, sizeof text, "%d", (int)index);
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = text,
                                        .workdir = "/",
                                        .user = r->user,
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
    sim->counts.n[COUNT_ORDERS] += !sim->calm;
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
    sim->counts.n[COUNT_DRAINS] += drain;
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

/* Maintenance of a node some minutes from now. */
static void plan_maintenance(struct sim *sim)
{
    struct input in = {.kind = INPUT_RESERVATION_CREATE, .token = new_token(sim, ORIGIN_MAINT, 0)};
    int node = (int)sim_roll(sim, (uint64_t)sim->options.nodes);
    int64_t start_ms = coord_now_ms(sim) + sim_between(sim, 0, 600000);
    in.u.reservation =
        (struct input_reservation){.is_maint = true,
                                   .nodes = sim->workers[node].name,
                                   .reason = "new fans",
                                   .by_user = "op",
                                   .start_ms = start_ms,
                                   .end_ms = start_ms + sim_between(sim, 10000, 600000)};
    sim_count(sim, COUNT_WINDOWS);
    sim_trace(sim, "operator: maintenance of %s", sim->workers[node].name);
    coord_input(sim, &in);
}

static void cancel_maintenance(struct sim *sim, uint64_t id)
{
    struct input in = {.kind = INPUT_RESERVATION_CANCEL, .token = new_token(sim, ORIGIN_OTHER, 0)};
    in.u.reservation.id = id;
    in.u.reservation.by_user = "op";
    coord_input(sim, &in);
}

static void set_quota(struct sim *sim, bool is_user, bool lift)
{
    struct input in = {.kind = INPUT_QUOTA_SET, .token = new_token(sim, ORIGIN_OTHER, 0)};
    sim->counts.n[COUNT_QUOTAS] += !lift;
    in.u.quota = (struct input_quota_set){.account = is_user ? NULL : "b",
                                          .user = is_user ? "v" : NULL,
                                          .reason = "fairness",
                                          .by_user = "op",
                                          .nodes = lift ? INT64_MIN : sim_between(sim, 1, 4),
                                          .expires_ms = INT64_MIN};
    if (!lift && sim_chance(sim, 0.5)) {
        in.u.quota.expires_ms = coord_now_ms(sim) + sim_between(sim, 1000, 600000);
    }
    coord_input(sim, &in);
}

static void limit_account(struct sim *sim, bool lift)
{
    struct input in = {.kind = INPUT_ACCOUNT_SET, .token = new_token(sim, ORIGIN_OTHER, 0)};
    sim->counts.n[COUNT_QUOTAS] += !lift;
    in.u.account = (struct input_account_set){
        .name = "a",
        .user = "op",
        .fields = ACCOUNT_FIELD_NODES_MAX | ACCOUNT_FIELD_SHARES,
        .shares = sim_between(sim, 1, 3),
        .nodes_max = lift ? INT64_MIN : sim_between(sim, 1, sim->options.nodes)};
    coord_input(sim, &in);
}

static void limit_queue(struct sim *sim, bool lift)
{
    struct input in = {.kind = INPUT_QUEUE_SET, .token = new_token(sim, ORIGIN_OTHER, 0)};
    sim->counts.n[COUNT_QUOTAS] += !lift;
    in.u.queue = (struct input_queue_set){.name = "default",
                                          .user = "op",
                                          .fields = QUEUE_FIELD_NODES_MAX | QUEUE_FIELD_JOBS_MAX |
                                                    QUEUE_FIELD_USER_JOBS_MAX,
                                          .nodes_max = INT64_MIN,
                                          .jobs_max = INT64_MIN,
                                          .user_jobs_max = INT64_MIN};
    int64_t *const limits[] = {&in.u.queue.nodes_max, &in.u.queue.jobs_max,
                               &in.u.queue.user_jobs_max};
    if (!lift) {
        /* Nobody asks for more nodes than three, and nobody's job shall wait for ever. */
        *limits[sim_roll(sim, 3)] = sim_between(sim, 1, 4);
    }
    coord_input(sim, &in);
}

/* One of all kinds of limits; while the faults last somebody sets and lifts them. */
static void limit(struct sim *sim)
{
    bool lift = sim_chance(sim, 0.5);
    switch (sim_roll(sim, 4)) {
    case 0:
        limit_account(sim, lift);
        break;
    case 1:
        limit_queue(sim, lift);
        break;
    default:
        set_quota(sim, sim_chance(sim, 0.5), lift);
    }
}

static void change_job(struct sim *sim)
{
    sim_count(sim, COUNT_CHANGES);
    struct input in = {.token = new_token(sim, ORIGIN_OTHER, 0)};
    uint64_t job = any_job(sim);
    if (sim_chance(sim, 0.5)) {
        in.kind = INPUT_JOB_UPDATE;
        in.u.update.job = job;
        in.u.update.user = "op";
        in.u.update.fields = JOB_FIELD_PRIORITY | JOB_FIELD_PREEMPTIBLE;
        in.u.update.priority = sim_between(sim, -1000, 1000);
        in.u.update.preemptible = sim_chance(sim, 0.5);
    } else {
        in.kind = INPUT_JOB_RESIZE;
        in.u.resize.job = job;
        in.u.resize.user = "op";
        in.u.resize.nodes_min = (uint32_t)sim_between(sim, 1, sim->options.nodes);
        in.u.resize.nodes_max =
            (uint32_t)sim_between(sim, in.u.resize.nodes_min, sim->options.nodes);
    }
    coord_input(sim, &in);
}

static void manage(struct sim *sim)
{
    switch (sim_roll(sim, 8)) {
    case 0:
        job_order(sim, INPUT_JOB_SUSPEND, any_job(sim));
        break;
    case 1:
        job_order(sim, INPUT_JOB_RESUME, any_job(sim));
        break;
    case 2:
        job_order(sim, INPUT_JOB_REQUEUE, any_job(sim));
        break;
    case 3:
        plan_maintenance(sim);
        break;
    case 4:
        if (sim->window_count > 0) {
            cancel_maintenance(sim, sim->windows[sim_roll(sim, sim->window_count)]);
        }
        break;
    case 5:
    case 6:
        limit(sim);
        break;
    default:
        change_job(sim);
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
    if (sim->options.features && sim_chance(sim, 0.4)) {
        manage(sim);
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
        sim_count(sim, COUNT_CORRUPT);
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
            const struct request *r = &sim->requests[i];
            for (uint64_t job = r->job; job == r->job || job < r->job + r->array; job++) {
                job_order(sim, INPUT_JOB_RELEASE, job);
                if (sim->options.features) {
                    job_order(sim, INPUT_JOB_RESUME, job);
                }
            }
        }
    }
    for (size_t i = 0; i < sim->window_count; i++) {
        cancel_maintenance(sim, sim->windows[i]);
    }
    if (sim->options.features) {
        set_quota(sim, false, true);
        set_quota(sim, true, true);
        limit_account(sim, true);
        limit_queue(sim, true);
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
    } else if (kind == ORIGIN_MAINT && code == 0 && sim->window_count < 64) {
        sim->windows[sim->window_count++] = id;
    }
}

void users_coord_crashed(struct sim *sim)
{
    for (int i = 0; i < sim->options.nodes; i++) {
        sim->node_ops[i].pending = false; /* nobody will answer */
    }
}

static void draw_features(struct sim *sim, struct request *r, int index)
{
    if (sim_chance(sim, 0.2)) {
        r->nodes_max = (uint32_t)sim_between(sim, r->nodes, sim->options.nodes);
    }
    r->array = sim_chance(sim, 0.15) ? (uint32_t)sim_between(sim, 1, SIM_ARRAY_MAX) : 0;
    r->spares = sim_chance(sim, 0.25) ? 1 : 0;
    r->singleton = sim_chance(sim, 0.1);
    r->may_stop = sim_chance(sim, 0.6);
    r->after = index > 0 && sim_chance(sim, 0.2) ? (int)sim_roll(sim, (uint64_t)index) : -1;
    r->need = (enum dependency_kind)sim_roll(sim, 4);
    r->delay_ms = sim_chance(sim, 0.1) ? sim_between(sim, 1000, 600000) : 0;
    r->user = sim_chance(sim, 0.3) ? "v" : "u";
    r->priority = sim_between(sim, -1000, 1000);
}

/* What was not committed never was, its time too: the coordinator's clock may begin before the
 * moment at which somebody asked for a resume. */
void users_coord_started(struct sim *sim)
{
    for (size_t i = 0; i < sim->drain_count; i++) {
        struct drain *drain = &sim->drains[i];
        if (drain->to_ms != INT64_MAX && drain->to_ms > coord_now_ms(sim)) {
            drain->to_ms = coord_now_ms(sim);
        }
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
        r->nodes_max = r->nodes;
        r->after = -1;
        r->user = "u";
        if (sim->options.features) {
            draw_features(sim, r, i);
        }
        sim_after(sim, sim_between(sim, 0, sim->options.fault_phase_ms * 2 / 3), submit,
                  (uint64_t)i, 0, NULL);
    }
    sim_after(sim, sim_wait(sim, sim->options.operator_ms), operate, 0, 0, NULL);
}
