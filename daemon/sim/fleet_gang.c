#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/fleet_state.h"
#include "lib/mem.h"

#define SAYS_AGAIN_MS 1000

struct fgang *gang_of(struct fleet *f, uint64_t index)
{
    return f->gangs[index];
}

/* ---- spans: what the plot and the utilisation are made of */
static void close_span(struct fleet *f, const struct fgang *gang)
{
    f->result->spans[gang->span - 1].to_ms = f->now_ms;
    f->jobs[gang->job].waits_ms = f->now_ms;
}

static void open_span(struct fleet *f, struct fgang *gang)
{
    struct fleet_result *r = f->result;
    void *spans = r->spans;
    mem_grow(&spans, &r->span_capacity, r->span_count + 1, sizeof *r->spans);
    r->spans = spans;
    const struct fleet_job *job = &f->jobs[gang->job];
    r->spans[r->span_count++] =
        (struct fleet_span){job->waits_ms, f->now_ms, f->now_ms, (uint64_t)job->nodes * job->gpus};
    gang->span = r->span_count;
}

struct fgang *gang_create(struct fleet *f, size_t job, const struct effect_start *start)
{
    void *gangs = f->gangs;
    mem_grow(&gangs, &f->gang_capacity, f->gang_count + 1, sizeof(struct fgang *));
    f->gangs = gangs;
    struct fgang *gang = mem_alloc(sizeof *gang);
    *gang = (struct fgang){.index = f->gang_count,
                           .job = job,
                           .id = start->job,
                           .epoch = start->epoch,
                           .node_count = start->node_count,
                           .world_size = start->world_size,
                           .resume_step = start->resume_step};
    f->gangs[f->gang_count++] = gang;
    f->gangs_alive++;
    f->gang_of_job[job] = gang->index + 1;
    struct fleet_job *j = &f->jobs[job];
    j->attempts++;
    if (j->has_train) {
        gang->base_ms =
            start->resume_step > 0 ? schedule_useful_ms(&j->schedule, start->resume_step) : 0;
        gang->halted_ms = gang->base_ms;
    }
    open_span(f, gang);
    return gang;
}

void gang_settle(struct fleet *f, struct fgang *gang)
{
    for (uint32_t i = 0; i < gang->part_count; i++) {
        if (gang->parts[i].state != PART_ENDED && !gang->parts[i].gone) {
            return;
        }
    }
    if (gang->part_count < gang->node_count) {
        return; /* the rest may still be ordered */
    }
    f->gangs[gang->index] = NULL;
    free(gang->parts);
    free(gang);
}

/* ---- progress */
static int64_t useful_now(const struct fleet *f, const struct fgang *gang)
{
    if (gang->state != GANG_WORKING) {
        return gang->halted_ms;
    }
    int64_t done_ms = f->now_ms - gang->stretch_ms;
    done_ms = done_ms < 0 ? 0 : done_ms;
    return gang->base_ms + (done_ms < gang->stretch_useful_ms ? done_ms : gang->stretch_useful_ms);
}

static struct fpart *part_of_rank(struct fgang *gang, uint32_t rank)
{
    uint32_t per = gang->parts[0].rank_count;
    uint32_t guess = rank / per; /* orders come in the order of ranks, as a rule */
    if (guess < gang->part_count && gang->parts[guess].rank_first / per == guess) {
        return &gang->parts[guess];
    }
    for (uint32_t i = 0; i < gang->part_count; i++) {
        if (rank - gang->parts[i].rank_first < gang->parts[i].rank_count) {
            return &gang->parts[i];
        }
    }
    return NULL;
}

static session_id session_of_rank(struct fleet *f, struct fgang *gang, uint32_t rank)
{
    const struct fpart *part = part_of_rank(gang, rank);
    return part != NULL && !part->gone ? f->nodes[part->node].session : 0;
}

void gang_tell(struct fleet *f, struct fgang *gang, int64_t useful_ms)
{
    const struct fleet_job *job = &f->jobs[gang->job];
    uint64_t step = schedule_step(&job->schedule, useful_ms);
    struct input in = {.kind = INPUT_STEP_REPORT, .session = session_of_rank(f, gang, 0)};
    if (in.session == 0 || step <= gang->told_step || step <= gang->resume_step) {
        return;
    }
    gang->told_step = step;
    struct input_metric metric = {.step = step,
                                  .epoch = gang->epoch,
                                  .tokens = schedule_tokens(&job->schedule, step),
                                  .loss = NAN,
                                  .mtp_loss = NAN,
                                  .grad_norm = NAN,
                                  .lr = NAN,
                                  .tokens_per_s = NAN,
                                  .balance_maxvio = NAN,
                                  .valid_loss = NAN};
    in.u.steps = (struct input_steps){.job = gang->id,
                                      .epoch = gang->epoch,
                                      .steps = job->schedule.steps,
                                      .metrics = &metric,
                                      .metric_count = 1,
                                      .ckpt_stall_ms = (uint64_t)gang->stall_ms};
    gang->stall_ms = 0;
    fleet_input(f, &in);
}

void gang_halt(struct fleet *f, struct fgang *gang)
{
    if (gang->state == GANG_HALTED || gang->state == GANG_DONE) {
        return;
    }
    if (gang->state == GANG_WORKING) {
        gang->halted_ms = useful_now(f, gang);
    }
    gang->state = GANG_HALTED;
    f->gangs_alive--;
    gang->turn++;
    close_span(f, gang);
}

/* ---- end */
static void finish(struct fleet *f, struct fgang *gang)
{
    gang->halted_ms = useful_now(f, gang);
    gang->state = GANG_DONE;
    f->gangs_alive--;
    gang->turn++;
    close_span(f, gang);
    for (uint32_t i = 0; i < gang->part_count; i++) {
        part_end(f, gang, i, 0, 0);
    }
}

/* ---- saving */
static void tell_shards(struct fleet *f, struct fgang *gang, uint64_t step)
{
    for (uint32_t rank = 0; rank < gang->world_size; rank++) {
        char file[64], digest[65];
        struct input in = {.kind = INPUT_SHARD_REPORT, .session = session_of_rank(f, gang, rank)};
        if (in.session == 0) {
            return;
        }
        snprintf(file, sizeof file, "shard-%05u.safetensors", rank);
        snprintf(digest, sizeof digest, "%016" PRIx64 "%016" PRIx64 "%016" PRIx64 "%016x", gang->id,
                 gang->epoch, step, rank);
        in.u.shard = (struct input_shard){.job = gang->id,
                                          .epoch = gang->epoch,
                                          .step = step,
                                          .world_size = gang->world_size,
                                          .rank = rank,
                                          .file = file,
                                          .xxh3 = digest + 32,
                                          .sha256 = digest,
                                          .bytes = 1u << 30,
                                          .layout = "{}"};
        fleet_input(f, &in);
    }
}

/* A worker is away or the coordinator is; a machine that is gone says nothing any more. */
static bool is_cut_off(const struct fleet *f, const struct fgang *gang)
{
    for (uint32_t i = 0; i < gang->part_count; i++) {
        if (!gang->parts[i].gone && f->nodes[gang->parts[i].node].session == 0) {
            return true;
        }
    }
    return false;
}

/* The shards of a step are durable; what was saved before a loss but not yet written is void. */
static void saved(struct fleet *f, uint64_t index, uint64_t step, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang == NULL || gang->state == GANG_STARTING ||
        (gang->state == GANG_HALTED && !gang->saving)) {
        return;
    }
    if (is_cut_off(f, gang)) { /* a report is sent again until it is answered */
        fleet_after(f, SAYS_AGAIN_MS, saved, index, step);
        return;
    }
    tell_shards(f, gang, step);
    if (step == f->jobs[gang->job].schedule.steps && gang->state == GANG_WORKING) {
        finish(f, gang);
        gang_settle(f, gang);
    }
}

void gang_save_now(struct fleet *f, struct fgang *gang)
{
    const struct fleet_job *job = &f->jobs[gang->job];
    uint64_t step = schedule_step(&job->schedule, gang->halted_ms);
    if (gang->saving || step <= gang->resume_step) {
        return;
    }
    gang->saving = true;
    gang_tell(f, gang, gang->halted_ms);
    fleet_after(f, job->save_write_ms, saved, gang->index, step);
}

static void stretch(struct fleet *f, struct fgang *gang, int64_t begin_ms);

/* The end of a stretch: a checkpoint is due, or all is done. */
static void boundary(struct fleet *f, uint64_t index, uint64_t turn, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang == NULL || gang->turn != turn) {
        return;
    }
    const struct fleet_job *job = &f->jobs[gang->job];
    if (!job->has_train) {
        finish(f, gang);
        gang_settle(f, gang);
        return;
    }
    gang->base_ms += gang->stretch_useful_ms;
    gang->stretch_useful_ms = 0;
    uint64_t step = schedule_step(&job->schedule, gang->base_ms);
    bool is_last = step >= job->schedule.steps;
    gang->stall_ms += job->save_stall_ms;
    gang->saves++;
    int64_t next_ms =
        f->now_ms + 2 * job->save_stall_ms + job->save_every_ms + job->save_write_ms + 1000;
    if (is_last || gang->saves % job->save_told == 0 || f->next_fault_ms <= next_ms ||
        (f->setup->horizon_ms > 0 && f->setup->horizon_ms <= next_ms)) {
        gang_tell(f, gang, gang->base_ms);
        int64_t write_ms = is_last ? job->save_stall_ms : job->save_stall_ms + job->save_write_ms;
        fleet_after(f, write_ms, saved, gang->index, step);
    }
    if (!is_last) {
        stretch(f, gang, f->now_ms + job->save_stall_ms);
    }
}

/* The next stretch of training ends at the first step boundary after save_every. */
static void stretch(struct fleet *f, struct fgang *gang, int64_t begin_ms)
{
    const struct fleet_job *job = &f->jobs[gang->job];
    uint64_t from = schedule_step(&job->schedule, gang->base_ms);
    uint64_t step = schedule_save_step(&job->schedule, from, job->save_every_ms);
    gang->stretch_ms = begin_ms;
    gang->stretch_useful_ms = schedule_useful_ms(&job->schedule, step) - gang->base_ms;
    fleet_after(f, begin_ms - f->now_ms + gang->stretch_useful_ms, boundary, gang->index,
                gang->turn);
}

static void first_step(struct fleet *f, uint64_t index, uint64_t turn, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang != NULL && gang->turn == turn && gang->state == GANG_WORKING) {
        gang_tell(f, gang, useful_now(f, gang));
    }
}

/* A mistake of its own, every time: one rank is killed, the others notice. */
static void crash(struct fleet *f, uint64_t index, uint64_t turn, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang == NULL || gang->epoch != turn || gang->state != GANG_WORKING) {
        return;
    }
    fleet_trace(f, "job %" PRIu64 " crashes, attempt %" PRIu64, gang->id, gang->epoch);
    gang_halt(f, gang);
    gang_tell(f, gang, gang->halted_ms);
    for (uint32_t i = 0; i < gang->part_count; i++) {
        part_end(f, gang, i, i == 0 ? -1 : COLLECTIVE_ABORT, i == 0 ? SIGKILL : 0);
    }
    gang_settle(f, gang);
}

static void loaded(struct fleet *f, uint64_t index, uint64_t turn, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang == NULL || gang->turn != turn) {
        return;
    }
    const struct fleet_job *job = &f->jobs[gang->job];
    gang->state = GANG_WORKING;
    if (job->crash_ms > 0) {
        fleet_after(f, job->crash_ms, crash, gang->index, gang->epoch);
    }
    if (!job->has_train) {
        gang->stretch_ms = f->now_ms;
        gang->stretch_useful_ms = job->work_ms;
        fleet_after(f, job->work_ms, boundary, gang->index, gang->turn);
        return;
    }
    uint64_t step = schedule_step(&job->schedule, gang->base_ms);
    fleet_after(f, schedule_useful_ms(&job->schedule, step + 1) - gang->base_ms, first_step,
                gang->index, gang->turn);
    stretch(f, gang, f->now_ms);
}

void gang_begin(struct fleet *f, struct fgang *gang)
{
    const struct fleet_job *job = &f->jobs[gang->job];
    fleet_after(f, job->has_train ? f->setup->load_ms : 0, loaded, gang->index, gang->turn);
}
