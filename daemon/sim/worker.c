/* The worker process and its machine. What it knows of attempts is durable (the shims keep it), so
 * a restart loses nothing; a reboot loses all. Reports of ranks are sent again until they are
 * answered. */
#include "daemon/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "lib/err.h"
#include "lib/mem.h"

static struct part *find(struct worker *worker, uint64_t job, uint64_t epoch)
{
    for (size_t i = 0; i < worker->part_count; i++) {
        if (worker->parts[i].job == job && worker->parts[i].epoch == epoch) {
            return &worker->parts[i];
        }
    }
    return NULL;
}

static reply_token new_token(struct sim *sim, const struct worker *worker)
{
    reply_token token = ++sim->next_token;
    sim_origin(sim, token, ORIGIN_WORKER, (uint64_t)worker->index, worker->session);
    return token;
}

static void report(struct sim *sim, struct worker *worker, const struct part *part)
{
    struct message m = {.kind = INPUT_ATTEMPT_REPORT,
                        .job = part->job,
                        .epoch = part->epoch,
                        .phase = part->phase,
                        .failed = part->failed,
                        .exit_count = part->exit_count};
    memcpy(m.exits, part->exits, sizeof m.exits);
    if (worker->session != 0) { /* else the next registration says it */
        net_send(sim, worker, &m, new_token(sim, worker));
    }
}

/* ---- connection */
void worker_connected(struct sim *sim, struct worker *worker)
{
    struct message *m = mem_alloc(sizeof *m);
    m->kind = INPUT_WORKER_REGISTER;
    m->boots = worker->boots;
    m->term_seen = worker->term_seen;
    m->part_count = worker->part_count;
    memcpy(m->parts, worker->parts, worker->part_count * sizeof *m->parts);
    memcpy(m->broken, worker->broken, sizeof m->broken);
    net_send(sim, worker, m, new_token(sim, worker));
    free(m);
}

void worker_heartbeat(struct sim *sim, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct worker *worker = &sim->workers[index];
    if (worker->registered) {
        net_send(sim, worker, &(struct message){.kind = INPUT_HEARTBEAT}, new_token(sim, worker));
    }
    sim_after(sim, 5000, worker_heartbeat, index, 0, NULL);
}

static void send_outgoing(struct sim *sim, struct worker *worker, struct outgoing *out)
{
    out->token = new_token(sim, worker);
    net_send(sim, worker, out->message, out->token);
}

void worker_report_later(struct sim *sim, struct worker *worker, const struct message *message)
{
    if (worker->outbox_count == sizeof worker->outbox / sizeof worker->outbox[0]) {
        return; /* a rank would block; here it forgets */
    }
    struct outgoing *out = &worker->outbox[worker->outbox_count++];
    out->message = mem_alloc(sizeof *out->message);
    *out->message = *message;
    out->token = 0;
    if (worker->registered) {
        send_outgoing(sim, worker, out);
    }
}

static void answered(struct sim *sim, struct worker *worker, reply_token token, int code,
                     uint64_t term)
{
    if (!worker->registered) { /* the first answer on a connection is to the registration */
        if (code != 0) {
            sim_fail(sim, "%s is refused: %s", worker->name, err_text(code));
        }
        worker->registered = true;
        if (term < worker->term_seen) {
            sim_fail(sim, "%s obeys term %d after term %d", worker->name, (int)term,
                     (int)worker->term_seen);
        }
        worker->term_seen = term;
        for (size_t i = 0; i < worker->outbox_count; i++) {
            send_outgoing(sim, worker, &worker->outbox[i]);
        }
        return;
    }
    for (size_t i = 0; i < worker->outbox_count; i++) {
        if (worker->outbox[i].token != token) {
            continue;
        }
        struct message m = *worker->outbox[i].message;
        free(worker->outbox[i].message);
        memmove(&worker->outbox[i], &worker->outbox[i + 1],
                (worker->outbox_count - i - 1) * sizeof worker->outbox[0]);
        worker->outbox_count--;
        if (code == ERR_STALE) {
            sim->counts.n[COUNT_STALE] += m.kind == INPUT_SHARD_REPORT;
            gang_fenced(sim, m.job, m.epoch, worker->index);
        } else if (code != 0) {
            sim_fail(sim, "a report of job %d is refused: %s", (int)m.job, err_text(code));
        }
        return;
    }
}

/* ---- orders */
static void start_ranks(struct sim *sim, uint64_t index, uint64_t boots, void *payload)
{
    struct worker *worker = &sim->workers[index];
    struct order *order = payload;
    struct part *part = find(worker, order->job, order->epoch);
    if (part == NULL || part->phase != 1 || (uint64_t)worker->boots != boots) {
        free(payload);
        return;
    }
    if (!worker->up) {
        sim_after(sim, 500, start_ranks, index, boots, payload);
        return;
    }
    if (!sim->calm && sim_chance(sim, 0.02)) {
        part->phase = 3;
        part->failed = true;
        sim_count(sim, COUNT_START_FAILS);
        report(sim, worker, part);
    } else {
        part->phase = 2;
        report(sim, worker, part);
        gang_join(sim, order, worker->index);
        for (uint32_t i = 0; i < part->rank_count; i++) {
            gang_rank_started(sim, order->job, order->epoch, part->rank_first + i);
        }
    }
    free(payload);
}

static void check_exclusive(struct sim *sim, const struct worker *worker, const struct order *order)
{
    for (size_t i = 0; i < worker->part_count; i++) {
        const struct part *part = &worker->parts[i];
        for (size_t a = 0; part->phase != 3 && a < part->gpu_count; a++) {
            for (size_t b = 0; b < order->gpu_count; b++) {
                if (part->gpus[a] == order->gpus[b]) {
                    sim_fail(sim,
                             "%s: accelerator %u is given to job %d while job %d, attempt %d, runs "
                             "on it",
                             worker->name, part->gpus[a], (int)order->job, (int)part->job,
                             (int)part->epoch);
                }
            }
        }
    }
}

static void order_start(struct sim *sim, struct worker *worker, const struct order *order)
{
    if (find(worker, order->job, order->epoch) != NULL) {
        return;
    }
    check_exclusive(sim, worker, order);
    check_resume(sim, order);
    if (worker->part_count == sizeof worker->parts / sizeof worker->parts[0]) {
        sim_fail(sim, "%s has never been told to forget its attempts", worker->name);
    }
    struct part *part = &worker->parts[worker->part_count++];
    *part = (struct part){.job = order->job,
                          .epoch = order->epoch,
                          .phase = 1,
                          .rank_first = order->rank_first,
                          .rank_count = order->gpu_count > 0 ? (uint32_t)order->gpu_count : 1,
                          .world_size = order->world_size,
                          .gpu_count = order->gpu_count};
    memcpy(part->gpus, order->gpus, sizeof part->gpus);
    sim_trace(sim, "%s: job %d attempt %d ordered, from step %d", worker->name, (int)order->job,
              (int)order->epoch, (int)order->resume_step);
    report(sim, worker, part);
    struct order *copy = mem_alloc(sizeof *copy);
    *copy = *order;
    sim_after(sim, sim_between(sim, 5, 2000), start_ranks, (uint64_t)worker->index,
              (uint64_t)worker->boots, copy);
}

static void order_stop(struct sim *sim, struct worker *worker, const struct order *order)
{
    struct part *part = find(worker, order->job, order->epoch);
    if (part == NULL) {
        report(sim, worker, &(struct part){.job = order->job, .epoch = order->epoch, .phase = 3});
    } else if (part->phase == 1) {
        part->phase = 3;
        report(sim, worker, part);
    } else if (part->phase == 2) {
        /* Passed on to the ranks: that is worth an answer, whatever they make of it. */
        net_send(
            sim, worker,
            &(struct message){.kind = INPUT_STOP_ACKED, .job = part->job, .epoch = part->epoch},
            new_token(sim, worker));
        for (uint32_t i = 0; i < part->rank_count; i++) {
            gang_rank_kill(sim, part->job, part->epoch, part->rank_first + i, order->grace_ms);
        }
    } else {
        report(sim, worker, part);
    }
}

static void order_forget(struct sim *sim, struct worker *worker, const struct order *order)
{
    struct part *part = find(worker, order->job, order->epoch);
    if (part == NULL) {
        return;
    }
    if (part->phase != 3) {
        sim_fail(sim, "%s is to forget job %d, attempt %d, which still runs", worker->name,
                 (int)order->job, (int)order->epoch);
    }
    *part = worker->parts[--worker->part_count];
}

static void acknowledge(struct sim *sim, uint64_t index, uint64_t boots, void *payload)
{
    struct worker *worker = &sim->workers[index];
    if ((uint64_t)worker->boots == boots && worker->session != 0) {
        net_send(sim, worker, payload, new_token(sim, worker));
    }
    free(payload);
}

static void order_ckpt(struct sim *sim, struct worker *worker, const struct order *order)
{
    struct message *m = mem_alloc(sizeof *m);
    bool removal = order->kind == EFFECT_CKPT_REMOVE;
    m->kind = removal ? INPUT_CKPT_REMOVED : INPUT_CKPT_PUBLISHED;
    m->ckpt = order->ckpt;
    m->ok = sim->calm || !sim_chance(sim, 0.1);
    if (removal && m->ok) {
        disk_remove(sim, order->path);
    }
    sim_after(sim, sim_between(sim, 1, 300), acknowledge, (uint64_t)worker->index,
              (uint64_t)worker->boots, m);
}

static void carry_out(struct sim *sim, struct worker *worker, const struct order *order)
{
    switch (order->kind) {
    case EFFECT_REPLY:
        answered(sim, worker, order->token, order->code, order->term);
        break;
    case EFFECT_ATTEMPT_START:
        order_start(sim, worker, order);
        break;
    case EFFECT_ATTEMPT_STOP:
        order_stop(sim, worker, order);
        break;
    case EFFECT_ATTEMPT_FORGET:
        order_forget(sim, worker, order);
        break;
    case EFFECT_CKPT_PUBLISH:
    case EFFECT_CKPT_REMOVE:
        order_ckpt(sim, worker, order);
        break;
    case EFFECT_DROP_SESSION:
        net_break(sim, worker, -1);
        break;
    default:
        sim_fail(sim, "%s gets an order it does not know", worker->name);
    }
}

/* The process dies between two of its steps; what it knew is on its disk. */
static bool dies_here(struct sim *sim, struct worker *worker)
{
    if (sim->calm || !sim_chance(sim, sim->options.worker_crash)) {
        return false;
    }
    sim_count(sim, COUNT_WORKER_CRASHES);
    worker_restart(sim, worker);
    return true;
}

void worker_order(struct sim *sim, struct worker *worker, const struct order *order)
{
    if (order->kind != EFFECT_REPLY && dies_here(sim, worker)) {
        return;
    }
    carry_out(sim, worker, order);
    if (order->kind != EFFECT_REPLY) {
        dies_here(sim, worker);
    }
}

/* ---- ranks */
void worker_rank_exited(struct sim *sim, struct worker *worker, uint64_t job, uint64_t epoch,
                        struct input_exit x)
{
    struct part *part = find(worker, job, epoch);
    if (part == NULL || part->phase == 3) {
        return;
    }
    part->exits[part->exit_count++] = x;
    if (part->exit_count == part->rank_count) {
        part->phase = 3;
    }
    if (worker->up) {
        report(sim, worker, part);
    }
}

/* ---- faults */
static void come_up(struct sim *sim, uint64_t index, uint64_t boots, void *payload)
{
    (void)payload;
    struct worker *worker = &sim->workers[index];
    if ((uint64_t)worker->boots == boots && !worker->up) {
        worker->up = true;
        net_connect(sim, worker);
    }
}

void worker_restart(struct sim *sim, struct worker *worker)
{
    if (!worker->up) {
        return;
    }
    sim_count(sim, COUNT_WORKER_RESTARTS);
    sim_trace(sim, "%s: worker restarts", worker->name);
    worker->up = false;
    net_break(sim, worker, sim_between(sim, 0, 50));
    sim_after(sim, sim_between(sim, 200, 8000), come_up, (uint64_t)worker->index,
              (uint64_t)worker->boots, NULL);
}

void worker_reboot(struct sim *sim, struct worker *worker)
{
    sim_count(sim, COUNT_REBOOTS);
    sim_trace(sim, "%s: machine reboots", worker->name);
    worker->up = false;
    net_break(sim, worker, sim_chance(sim, 0.5) ? -1 : sim_between(sim, 0, 15000));
    for (size_t i = 0; i < worker->part_count; i++) {
        struct part *part = &worker->parts[i];
        struct gang *gang = gang_find(sim, part->job, part->epoch);
        for (uint32_t r = 0; gang != NULL && part->phase == 2 && r < part->rank_count; r++) {
            gang_rank_vanished(sim, gang, part->rank_first + r);
        }
    }
    worker->part_count = 0;
    for (size_t i = 0; i < worker->outbox_count; i++) {
        free(worker->outbox[i].message);
    }
    worker->outbox_count = 0;
    worker->boots++;
    sim_after(sim, sim_between(sim, 3000, 90000), come_up, (uint64_t)worker->index,
              (uint64_t)worker->boots, NULL);
}

/* Says so on a new connection. */
static void reconnect(struct sim *sim, struct worker *worker)
{
    net_break(sim, worker, sim_between(sim, 0, 50));
}

static void repaired(struct sim *sim, uint64_t index, uint64_t gpu, void *payload)
{
    (void)payload;
    struct worker *worker = &sim->workers[index];
    if (worker->broken[gpu]) {
        sim_trace(sim, "%s: accelerator %d is repaired", worker->name, (int)gpu);
        worker->broken[gpu] = false;
        reconnect(sim, worker);
    }
}

void worker_repair(struct sim *sim, struct worker *worker)
{
    for (uint64_t i = 0; i < (uint64_t)sim->options.gpus; i++) {
        repaired(sim, (uint64_t)worker->index, i, NULL);
    }
}

void worker_break_gpu(struct sim *sim, struct worker *worker)
{
    uint32_t gpu = (uint32_t)sim_roll(sim, (uint64_t)sim->options.gpus);
    if (worker->broken[gpu]) {
        return;
    }
    sim_count(sim, COUNT_GPUS);
    sim_trace(sim, "%s: accelerator %u breaks", worker->name, gpu);
    worker->broken[gpu] = true;
    for (size_t i = 0; i < worker->part_count; i++) {
        const struct part *part = &worker->parts[i];
        struct gang *gang = gang_find(sim, part->job, part->epoch);
        for (size_t g = 0; gang != NULL && part->phase == 2 && g < part->gpu_count; g++) {
            if (part->gpus[g] == gpu) {
                gang_rank_exit(sim, gang, part->rank_first + (uint32_t)g, -1, 9);
                break;
            }
        }
    }
    reconnect(sim, worker);
    sim_after(sim, sim_between(sim, 20000, 400000), repaired, (uint64_t)worker->index, gpu, NULL);
}
