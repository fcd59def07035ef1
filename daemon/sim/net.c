/* Connections. Each keeps the order of what is sent on it, in both directions; nothing that is
 * under way survives its end. One side may learn of the end much later than the other. */
#include "daemon/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

struct worker *net_worker_of(struct sim *sim, session_id session)
{
    for (int i = 0; session != 0 && i < sim->options.nodes; i++) {
        if (sim->workers[i].session == session) {
            return &sim->workers[i];
        }
    }
    return NULL;
}

static int64_t latency(struct sim *sim)
{
    return sim_chance(sim, 0.02) ? sim_between(sim, 0, sim->options.latency_ms * 20)
                                 : sim_between(sim, 0, sim->options.latency_ms);
}

static void try_connect(struct sim *sim, uint64_t index, uint64_t generation, void *payload)
{
    (void)payload;
    struct worker *worker = &sim->workers[index];
    if (worker->connecting != generation || !worker->up || worker->session != 0) {
        return;
    }
    if (!sim->coord_up || sim->now_ms < worker->cut_until_ms) {
        sim_after(sim, sim_between(sim, 100, 2000), try_connect, index, generation, NULL);
        return;
    }
    worker->session = ++sim->next_session;
    worker->deliver_up_ms = worker->deliver_down_ms = sim->now_ms;
    worker_connected(sim, worker);
}

void net_connect(struct sim *sim, struct worker *worker)
{
    sim_after(sim, sim_between(sim, 1, 500), try_connect, (uint64_t)worker->index,
              ++worker->connecting, NULL);
}

static void tell_gone(struct sim *sim, uint64_t session, uint64_t life, void *payload)
{
    (void)payload;
    if (sim->coord_life == life) {
        coord_input(sim, &(struct input){.kind = INPUT_WORKER_GONE, .session = session});
    }
}

void net_break(struct sim *sim, struct worker *worker, int64_t notice_ms)
{
    if (worker->session == 0) {
        return;
    }
    sim_count(sim, COUNT_LOST);
    sim_trace(sim, "connection %d of %s breaks", (int)worker->session, worker->name);
    if (notice_ms >= 0) {
        sim_after(sim, notice_ms, tell_gone, worker->session, sim->coord_life, NULL);
    }
    worker->session = 0;
    worker->registered = false;
    if (worker->up) {
        net_connect(sim, worker);
    }
}

static void fill_report(struct input_attempt_report *report, const struct part *part)
{
    *report = (struct input_attempt_report){.job = part->job,
                                            .epoch = part->epoch,
                                            .phase = part->phase,
                                            .error = part->failed ? "could not start" : NULL,
                                            .exits = part->exits,
                                            .exit_count = part->exit_count};
}

static void deliver_register(struct sim *sim, struct worker *worker, const struct message *m,
                             struct input *in)
{
    static const char *const models[] = {"cpu", "X 1"};
    struct input_gpu gpus[SIM_GPUS_MAX];
    struct input_attempt_report reports[32];
    char uuids[SIM_GPUS_MAX][32], boot_id[16], addr[32];
    for (int i = 0; i < sim->options.gpus; i++) {
        snprintf(uuids[i], sizeof uuids[i], "%s-%d", worker->name, i);
        gpus[i] = (struct input_gpu){.index = (uint32_t)i,
                                     .uuid = uuids[i],
                                     .model = models[worker->index % 2],
                                     .health = m->broken[i] ? "xid 79" : "ok"};
    }
    for (size_t i = 0; i < m->part_count; i++) {
        fill_report(&reports[i], &m->parts[i]);
    }
    snprintf(boot_id, sizeof boot_id, "boot-%d", m->boots);
    snprintf(addr, sizeof addr, "10.0.0.%d", worker->index + 1);
    in->u.reg = (struct input_register){.name = worker->name,
                                        .boot_id = boot_id,
                                        .version = "1",
                                        .addr = addr,
                                        .gpus = gpus,
                                        .gpu_count = (size_t)sim->options.gpus,
                                        .attempts = reports,
                                        .attempt_count = m->part_count,
                                        .term_seen = m->term_seen};
    coord_input(sim, in);
}

static void deliver_steps(struct sim *sim, const struct message *m, struct input *in)
{
    struct input_metric metrics[16];
    size_t count = 0;
    for (uint64_t step = m->step_first; step <= m->step && count < 16; step++) {
        metrics[count++] = (struct input_metric){.step = step,
                                                 .epoch = m->epoch,
                                                 .tokens = step * 4096,
                                                 .loss = 5.0 / (double)step,
                                                 .mtp_loss = 5.5 / (double)step,
                                                 .grad_norm = 1,
                                                 .lr = 1e-4,
                                                 .tokens_per_s = 100,
                                                 .balance_maxvio = 0.1,
                                                 .valid_loss = 5.0,
                                                 .step_ms = 10};
    }
    in->u.steps = (struct input_steps){.job = m->job,
                                       .epoch = m->epoch,
                                       .steps = 100,
                                       .metrics = metrics,
                                       .metric_count = count,
                                       .ckpt_stall_ms = m->step % 3,
                                       .data_wait_ms = m->step % 2};
    coord_input(sim, in);
}

static void deliver(struct sim *sim, struct worker *worker, const struct message *m,
                    reply_token token)
{
    struct input in = {.kind = m->kind, .session = worker->session, .token = token};
    if (sim->now_ms - worker->heard_ms >= SIM_BURST_MS) {
        worker->heard_before_ms = worker->heard_ms;
    }
    worker->heard_ms = sim->now_ms;
    struct part part = {.job = m->job,
                        .epoch = m->epoch,
                        .phase = m->phase,
                        .failed = m->failed,
                        .exit_count = m->exit_count};
    memcpy(part.exits, m->exits, sizeof part.exits);
    char file[64], sha256[65];
    switch (m->kind) {
    case INPUT_WORKER_REGISTER:
        deliver_register(sim, worker, m, &in);
        return;
    case INPUT_STEP_REPORT:
        deliver_steps(sim, m, &in);
        return;
    case INPUT_ATTEMPT_REPORT:
        fill_report(&in.u.attempt, &part);
        break;
    case INPUT_SHARD_REPORT:
        snprintf(file, sizeof file, "shard-%05u.safetensors", m->rank);
        snprintf(sha256, sizeof sha256, "%016llx%016llx%016llx%016llx", (unsigned long long)m->job,
                 (unsigned long long)m->epoch, (unsigned long long)m->step,
                 (unsigned long long)m->rank);
        in.u.shard = (struct input_shard){.job = m->job,
                                          .epoch = m->epoch,
                                          .step = m->step,
                                          .world_size = m->world_size,
                                          .rank = m->rank,
                                          .file = file,
                                          .xxh3 = sha256 + 32,
                                          .sha256 = sha256,
                                          .bytes = 1000 + m->rank,
                                          .layout = "{\"mesh\":1}"};
        break;
    case INPUT_STOP_ACKED:
        in.u.acked.job = m->job;
        in.u.acked.epoch = m->epoch;
        break;
    case INPUT_CKPT_PUBLISHED:
    case INPUT_CKPT_REMOVED:
        in.u.ckpt.ckpt = m->ckpt;
        in.u.ckpt.ok = m->ok;
        in.u.ckpt.text = m->ok ? NULL : "stale file handle";
        break;
    default:
        break;
    }
    coord_input(sim, &in);
}

struct up { /* under way to the coordinator, in a worker's queue */
    struct up *next;
    session_id session;
    uint64_t life;
    struct message message;
    reply_token token;
};

/* The first message of the queue arrives. Each event takes one, so the order is kept whatever
 * becomes of the time. */
static void arrive_up(struct sim *sim, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct worker *worker = &sim->workers[index];
    struct up *up = worker->up_first;
    bool is_there = worker->session == up->session && sim->coord_up && sim->coord_life == up->life;
    if (is_there && sim->now_ms < sim->coord_frozen_until_ms) { /* it lies in the socket */
        sim_after(sim, sim->coord_frozen_until_ms - sim->now_ms, arrive_up, index, 0, NULL);
        return;
    }
    worker->up_first = up->next;
    if (worker->up_first == NULL) {
        worker->up_last = NULL;
    }
    if (is_there) {
        deliver(sim, worker, &up->message, up->token);
    } else {
        sim_count(sim, COUNT_LOST_MESSAGES);
    }
    free(up);
}

/* Worse than TCP: it arrives before the one that was sent before it. Only a registration, without
 * which nothing else is heard, keeps its place. */
static void overtake(struct sim *sim, struct up *before, struct up *up)
{
    if (before == NULL || before->session != up->session || before->life != up->life ||
        before->message.kind == INPUT_WORKER_REGISTER || sim->calm ||
        !sim_chance(sim, sim->options.overtake)) {
        return;
    }
    struct message message = before->message;
    reply_token token = before->token;
    before->message = up->message;
    before->token = up->token;
    up->message = message;
    up->token = token;
    sim_count(sim, COUNT_OVERTAKEN);
}

void net_send(struct sim *sim, struct worker *worker, const struct message *message,
              reply_token token)
{
    int copies = sim_chance(sim, sim->options.copy) ? 2 : 1;
    for (int i = 0; i < copies && worker->session != 0; i++) {
        int64_t at_ms = sim->now_ms + latency(sim);
        at_ms = at_ms > worker->mute_up_ms ? at_ms : worker->mute_up_ms; /* sent again till then */
        worker->deliver_up_ms = at_ms > worker->deliver_up_ms ? at_ms : worker->deliver_up_ms;
        struct up *up = mem_alloc(sizeof *up);
        up->session = worker->session;
        up->life = sim->coord_life;
        up->message = *message;
        up->token = i == 0 ? token : 0; /* a copy is not waited for */
        sim->counts.n[COUNT_COPIES] += i > 0;
        sim->counts.n[COUNT_DELAYED] += worker->deliver_up_ms - sim->now_ms > 1000;
        *(worker->up_last != NULL ? &worker->up_last->next : &worker->up_first) = up;
        overtake(sim, worker->up_last, up);
        worker->up_last = up;
        sim_after(sim, worker->deliver_up_ms - sim->now_ms, arrive_up, (uint64_t)worker->index, 0,
                  NULL);
    }
}

void net_fini(struct worker *worker)
{
    while (worker->up_first != NULL) {
        struct up *next = worker->up_first->next;
        free(worker->up_first);
        worker->up_first = next;
    }
}

static void arrive_down(struct sim *sim, uint64_t session, uint64_t b, void *payload)
{
    (void)b;
    struct worker *worker = net_worker_of(sim, session);
    if (worker != NULL) {
        worker_order(sim, worker, payload);
    } else {
        sim_count(sim, COUNT_LOST_MESSAGES);
    }
    free(payload);
}

void net_order(struct sim *sim, session_id session, const struct order *order)
{
    struct worker *worker = net_worker_of(sim, session);
    if (worker == NULL) {
        return;
    }
    int64_t at_ms = sim->now_ms + latency(sim);
    at_ms = at_ms > worker->mute_down_ms ? at_ms : worker->mute_down_ms;
    worker->deliver_down_ms = at_ms > worker->deliver_down_ms ? at_ms : worker->deliver_down_ms;
    struct order *copy = mem_alloc(sizeof *copy);
    *copy = *order;
    sim_after(sim, worker->deliver_down_ms - sim->now_ms, arrive_down, session, 0, copy);
}
