/* Ranks. A gang steps when all its ranks run, whatever the coordinator does; when one is gone the
 * others notice after a while. The shards of a save become durable one by one while training goes
 * on; rank 0 reports the steps. */
#include "daemon/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

struct gang *gang_find(struct sim *sim, uint64_t job, uint64_t epoch)
{
    for (size_t i = sim->gang_count; i-- > 0;) {
        if (sim->gangs[i]->job == job && sim->gangs[i]->epoch == epoch) {
            return sim->gangs[i];
        }
    }
    return NULL;
}

void gang_join(struct sim *sim, const struct order *start, int worker)
{
    struct gang *gang = gang_find(sim, start->job, start->epoch);
    if (gang == NULL) {
        if (sim->gang_count == sizeof sim->gangs / sizeof sim->gangs[0]) {
            sim_fail(sim, "too many attempts: something restarts for ever");
        }
        const struct request *request = &sim->requests[start->request];
        gang = mem_alloc(sizeof *gang);
        sim->gangs[sim->gang_count++] = gang;
        *gang = (struct gang){.index = sim->gang_count - 1,
                              .job = start->job,
                              .epoch = start->epoch,
                              .world_size = start->world_size,
                              .has_train = request->has_train,
                              .step = start->resume_step,
                              .resume_step = start->resume_step,
                              .goal = request->steps,
                              .save_every = request->save_every,
                              .step_ms = sim_between(sim, 200, 3000)};
        snprintf(gang->dir, sizeof gang->dir, "%s", start->path);
    }
    if (gang->resume_step != start->resume_step || strcmp(gang->dir, start->path) != 0) {
        sim_fail(sim, "ranks of job %d, attempt %d, begin at different steps or folders",
                 (int)start->job, (int)start->epoch);
    }
    uint32_t count = start->gpu_count > 0 ? (uint32_t)start->gpu_count : 1;
    for (uint32_t i = 0; i < count; i++) {
        gang->ranks[start->rank_first + i].worker = worker;
    }
}

/* ---- checkpoints on disk */
static struct disk_ckpt *disk_find(struct sim *sim, const char *path)
{
    for (size_t i = 0; i < sim->disk_count; i++) {
        if (strcmp(sim->disk[i].path, path) == 0) {
            return &sim->disk[i];
        }
    }
    return NULL;
}

void disk_remove(struct sim *sim, const char *path)
{
    struct disk_ckpt *ckpt = disk_find(sim, path);
    if (ckpt != NULL) {
        ckpt->removed = true;
    }
}

static void shard_durable(struct sim *sim, uint64_t index, uint64_t step_and_rank, void *payload)
{
    (void)payload;
    struct gang *gang = sim->gangs[index];
    uint64_t step = step_and_rank / SIM_RANKS_MAX;
    uint32_t rank = (uint32_t)(step_and_rank % SIM_RANKS_MAX);
    if (gang->ranks[rank].state != RANK_RUNNING) {
        return;
    }
    char path[512];
    snprintf(path, sizeof path, "%.480s/step-%010" PRIu64, gang->dir, step);
    struct disk_ckpt *ckpt = disk_find(sim, path);
    if (ckpt == NULL) {
        void *disk = sim->disk;
        mem_grow(&disk, &sim->disk_capacity, sim->disk_count + 1, sizeof *sim->disk);
        sim->disk = disk;
        ckpt = &sim->disk[sim->disk_count++];
        *ckpt = (struct disk_ckpt){.world_size = gang->world_size};
        snprintf(ckpt->path, sizeof ckpt->path, "%s", path);
    }
    ckpt->shards++;
    struct message m = {.kind = INPUT_SHARD_REPORT,
                        .job = gang->job,
                        .epoch = gang->epoch,
                        .step = step,
                        .world_size = gang->world_size,
                        .rank = rank};
    worker_report_later(sim, &sim->workers[gang->ranks[rank].worker], &m);
}

static void save(struct sim *sim, struct gang *gang)
{
    for (uint32_t rank = 0; rank < gang->world_size; rank++) {
        sim_after(sim, sim_between(sim, 10, 3 * gang->step_ms), shard_durable, gang->index,
                  gang->step * SIM_RANKS_MAX + rank, NULL);
    }
}

/* ---- end */
static void notice_loss(struct sim *sim, uint64_t index, uint64_t rank, void *payload)
{
    (void)payload;
    gang_rank_exit(sim, sim->gangs[index], (uint32_t)rank, 85, 0);
}

static void tear(struct sim *sim, struct gang *gang)
{
    if (gang->torn) {
        return;
    }
    gang->torn = true;
    for (uint32_t rank = 0; rank < gang->world_size; rank++) {
        if (gang->ranks[rank].state == RANK_RUNNING) {
            sim_after(sim, sim_between(sim, 50, 3000), notice_loss, gang->index, rank, NULL);
        }
    }
}

void gang_rank_exit(struct sim *sim, struct gang *gang, uint32_t rank, int32_t code, int32_t signal)
{
    if (gang->ranks[rank].state != RANK_RUNNING) {
        return;
    }
    gang->ranks[rank].state = RANK_EXITED;
    struct input_exit x = {.rank = rank, .code = code, .signal = signal, .last_words = "bye\n"};
    /* The machine's clock is not quite the coordinator's. */
    x.at_ms = coord_now_ms(sim) + sim->workers[gang->ranks[rank].worker].clock_ms +
              sim_between(sim, -30, 30);
    if (code != 0 || signal != 0) {
        tear(sim, gang);
    }
    worker_rank_exited(sim, &sim->workers[gang->ranks[rank].worker], gang->job, gang->epoch, x);
}

void gang_rank_vanished(struct sim *sim, struct gang *gang, uint32_t rank)
{
    if (gang->ranks[rank].state == RANK_RUNNING) {
        gang->ranks[rank].state = RANK_EXITED;
        tear(sim, gang);
    }
}

void gang_fenced(struct sim *sim, uint64_t job, uint64_t epoch, int worker)
{
    struct gang *gang = gang_find(sim, job, epoch);
    for (uint32_t rank = 0; gang != NULL && rank < gang->world_size; rank++) {
        if (gang->ranks[rank].worker == worker) {
            gang_rank_exit(sim, gang, rank, 84, 0);
        }
    }
}

static void killed(struct sim *sim, uint64_t index, uint64_t rank, void *payload)
{
    (void)payload;
    bool saved = sim_chance(sim, 0.3);
    gang_rank_exit(sim, sim->gangs[index], (uint32_t)rank, saved ? 80 : -1, saved ? 0 : 15);
}

void gang_rank_kill(struct sim *sim, uint64_t job, uint64_t epoch, uint32_t rank, int64_t grace_ms)
{
    struct gang *gang = gang_find(sim, job, epoch);
    if (gang != NULL && gang->ranks[rank].state == RANK_RUNNING) {
        sim_after(sim, sim_between(sim, 1, grace_ms + 50), killed, gang->index, rank, NULL);
    }
}

/* A rank leaves with 0 only when all its reports were answered. */
static void leave(struct sim *sim, uint64_t index, uint64_t rank, void *payload)
{
    (void)payload;
    struct gang *gang = sim->gangs[index];
    if (gang->torn || gang->ranks[rank].state != RANK_RUNNING) {
        return;
    }
    const struct worker *worker = &sim->workers[gang->ranks[rank].worker];
    for (size_t i = 0; i < worker->outbox_count; i++) {
        if (worker->outbox[i].message->job == gang->job &&
            worker->outbox[i].message->epoch == gang->epoch) {
            sim_after(sim, 300, leave, index, rank, NULL);
            return;
        }
    }
    gang_rank_exit(sim, gang, (uint32_t)rank, 0, 0);
}

/* ---- steps */
static void step(struct sim *sim, uint64_t index, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    struct gang *gang = sim->gangs[index];
    if (gang->torn) {
        return;
    }
    if (gang->step < gang->goal) {
        gang->step++;
        if (gang->has_train) {
            struct message m = {.kind = INPUT_STEP_REPORT,
                                .job = gang->job,
                                .epoch = gang->epoch,
                                .step = gang->step,
                                .step_first = gang->step};
            worker_report_later(sim, &sim->workers[gang->ranks[0].worker], &m);
            if (gang->step % gang->save_every == 0 || gang->step == gang->goal) {
                save(sim, gang);
            }
        }
        sim_after(sim, gang->step_ms, step, index, 0, NULL);
        return;
    }
    for (uint32_t rank = 0; rank < gang->world_size; rank++) {
        sim_after(sim, 4 * gang->step_ms + sim_between(sim, 0, 500), leave, index, rank, NULL);
    }
}

void gang_rank_started(struct sim *sim, uint64_t job, uint64_t epoch, uint32_t rank)
{
    struct gang *gang = gang_find(sim, job, epoch);
    gang->ranks[rank].state = RANK_RUNNING;
    if (gang->torn) {
        sim_after(sim, sim_between(sim, 50, 3000), notice_loss, gang->index, rank, NULL);
        return;
    }
    for (uint32_t i = 0; i < gang->world_size; i++) {
        if (gang->ranks[i].state != RANK_RUNNING) {
            return;
        }
    }
    gang->running = true;
    sim_after(sim, gang->step_ms, step, gang->index, 0, NULL);
}

void gang_crash_one(struct sim *sim)
{
    static const int32_t codes[][2] = {{-1, 9}, {-1, 9},  {-1, 9}, {75, 0}, {85, 0},
                                       {1, 0},  {-1, 11}, {65, 0}, {82, 0}, {83, 0},
                                       {86, 0}, {80, 0},  {93, 0}, {-1, 0}};
    if (sim->gang_count == 0) {
        return;
    }
    struct gang *gang = sim->gangs[sim_roll(sim, sim->gang_count)];
    uint32_t rank = (uint32_t)sim_roll(sim, gang->world_size);
    uint64_t which = sim_roll(sim, sizeof codes / sizeof codes[0]);
    if (gang->ranks[rank].state == RANK_RUNNING && !gang->torn) {
        sim_trace(sim, "rank %u of job %d attempt %d ends with %d, signal %d", rank, (int)gang->job,
                  (int)gang->epoch, codes[which][0], codes[which][1]);
        sim_count(sim, COUNT_RANKS);
        gang_rank_exit(sim, gang, rank, codes[which][0], codes[which][1]);
    }
}
