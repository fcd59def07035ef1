#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/fleet_state.h"
#include "lib/mem.h"

#define GPUS_MAX            64
#define PREEMPTED_AND_SAVED 80

struct fnode *fleet_node_of(struct fleet *f, session_id session)
{
    struct fnode *node = session != 0 ? &f->nodes[(session - 1) % f->setup->nodes] : NULL;
    return node != NULL && node->session == session ? node : NULL;
}

/* ---- reports */
static size_t fill_report(const struct fgang *gang, const struct fpart *part,
                          struct input_attempt_report *report, struct input_exit *exits)
{
    *report = (struct input_attempt_report){.job = gang->id, .epoch = gang->epoch};
    report->phase = part->state == PART_ENDED ? 3 : part->state == PART_STARTED ? 2 : 1;
    if (part->state != PART_ENDED) {
        return 0;
    }
    for (uint32_t i = 0; i < part->rank_count; i++) {
        exits[i] = (struct input_exit){.rank = part->rank_first + i,
                                       .code = part->code,
                                       .signal = part->signal,
                                       .at_ms = FLEET_EPOCH_MS + part->ended_ms};
    }
    report->exits = exits;
    report->exit_count = part->rank_count;
    return part->rank_count;
}

void part_report(struct fleet *f, struct fgang *gang, struct fpart *part)
{
    struct fnode *node = &f->nodes[part->node];
    if (node->session == 0 || part->gone) {
        return; /* the next registration says it */
    }
    struct input_exit exits[GPUS_MAX];
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = node->session};
    fill_report(gang, part, &in.u.attempt, exits);
    fleet_input(f, &in);
}

void part_end(struct fleet *f, struct fgang *gang, uint32_t index, int32_t code, int32_t signal)
{
    struct fpart *part = &gang->parts[index];
    if (part->state == PART_ENDED) {
        return;
    }
    part->state = PART_ENDED;
    part->code = code;
    part->signal = signal;
    part->ended_ms = f->now_ms;
    gang->ended++;
    part_report(f, gang, part);
}

/* ---- connections */
void node_announce(struct fleet *f, struct fnode *node)
{
    if (f->core == NULL) {
        return; /* it connects when there is somebody */
    }
    struct input_gpu gpus[GPUS_MAX];
    char uuids[GPUS_MAX][32], boot_id[16], addr[32];
    uint32_t index = (uint32_t)(node - f->nodes);
    for (uint32_t i = 0; i < f->setup->gpus; i++) {
        snprintf(uuids[i], sizeof uuids[i], "%s-%u", node->name, i);
        gpus[i] = (struct input_gpu){.index = i,
                                     .uuid = uuids[i],
                                     .model = f->setup->model,
                                     .memory_bytes = 80ull << 30,
                                     .health = (int)i == node->broken_gpu ? "broken" : "ok"};
    }
    snprintf(boot_id, sizeof boot_id, "boot-%d", node->boots);
    snprintf(addr, sizeof addr, "10.%u.%u.%u", index >> 16, index >> 8 & 255, index & 255);
    struct input_attempt_report *reports = mem_alloc_array(node->part_count + 1, sizeof *reports);
    struct input_exit *exits = mem_alloc_array(node->part_count + 1, GPUS_MAX * sizeof *exits);
    size_t count = 0;
    for (size_t i = 0; i < node->part_count; i++) {
        struct fgang *gang = gang_of(f, node->parts[i].gang);
        if (gang != NULL) {
            fill_report(gang, &gang->parts[node->parts[i].part], &reports[count],
                        exits + count * GPUS_MAX);
            count++;
        }
    }
    /* A new connection; the number says which node it is. */
    node->session = 1 + index + f->setup->nodes * f->sessions++;
    struct input in = {.kind = INPUT_WORKER_REGISTER, .session = node->session};
    in.u.reg = (struct input_register){.name = node->name,
                                       .boot_id = boot_id,
                                       .version = "1",
                                       .addr = addr,
                                       .gpus = gpus,
                                       .gpu_count = f->setup->gpus,
                                       .attempts = reports,
                                       .attempt_count = count,
                                       .term_seen = core_term(f->core)};
    node->seen_ms = f->now_ms;
    fleet_input(f, &in);
    free(reports);
    free(exits);
}

void node_connect(struct fleet *f, struct fnode *node)
{
    if (node->up && node->session == 0) {
        node_announce(f, node);
    }
}

/* Only those without which a lease would run out at the next look at it. */
void node_heartbeats(struct fleet *f)
{
    int64_t silence_ms = f->setup->core.lease_ms - f->setup->core.heartbeat_ms;
    for (uint32_t i = 0; i < f->setup->nodes; i++) {
        struct fnode *node = &f->nodes[i];
        if (node->session != 0 && f->now_ms - node->seen_ms >= silence_ms) {
            struct input in = {.kind = INPUT_HEARTBEAT, .session = node->session};
            node->seen_ms = f->now_ms;
            in.now_ms = FLEET_EPOCH_MS + f->now_ms;
            f->result->inputs++;
            pump_input(f->pump, &in);
        }
    }
}

/* ---- parts */
void part_add(struct fleet *f, struct fnode *node, struct fgang *gang, uint32_t part)
{
    (void)f;
    void *parts = node->parts;
    mem_grow(&parts, &node->part_capacity, node->part_count + 1, sizeof *node->parts);
    node->parts = parts;
    node->parts[node->part_count++] = (struct fnode_part){gang->index, part};
}

struct fpart *node_part(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch,
                        struct fgang **gang)
{
    for (size_t i = 0; i < node->part_count; i++) {
        *gang = gang_of(f, node->parts[i].gang);
        if (*gang != NULL && (*gang)->id == id && (*gang)->epoch == epoch) {
            return &(*gang)->parts[node->parts[i].part];
        }
    }
    *gang = NULL;
    return NULL;
}

void node_forget(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch)
{
    for (size_t i = 0; i < node->part_count; i++) {
        struct fgang *gang = gang_of(f, node->parts[i].gang);
        if (gang == NULL || (gang->id == id && gang->epoch == epoch)) {
            node->parts[i--] = node->parts[--node->part_count];
        }
    }
}

/* ---- orders */
static void part_started(struct fleet *f, uint64_t index, uint64_t part, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang == NULL || gang->parts[part].state != PART_ORDERED || gang->parts[part].gone) {
        return;
    }
    gang->parts[part].state = PART_STARTED;
    gang->started++;
    part_report(f, gang, &gang->parts[part]);
    if (gang->started == gang->node_count && gang->state == GANG_STARTING) {
        gang_begin(f, gang);
    }
}

static struct fgang *find_gang(struct fleet *f, const struct effect_start *start)
{
    size_t job = (size_t)strtoull(start->spec_json, NULL, 10);
    struct fgang *gang = f->gang_of_job[job] != 0 ? gang_of(f, f->gang_of_job[job] - 1) : NULL;
    return gang != NULL && gang->epoch == start->epoch ? gang : gang_create(f, job, start);
}

void node_order_start(struct fleet *f, struct fnode *node, const struct effect_start *start)
{
    struct fgang *gang;
    if (node_part(f, node, start->job, start->epoch, &gang) != NULL) {
        return; /* ordered again */
    }
    gang = find_gang(f, start);
    void *parts = gang->parts;
    size_t capacity = gang->part_capacity;
    mem_grow(&parts, &capacity, gang->part_count + 1, sizeof *gang->parts);
    gang->part_capacity = (uint32_t)capacity;
    gang->parts = parts;
    gang->parts[gang->part_count] = (struct fpart){
        .node = (uint32_t)(node - f->nodes),
        .rank_first = start->rank_first,
        .rank_count = start->gpu_count > 0 ? (uint32_t)start->gpu_count : 1,
        .gpu_count = (uint32_t)start->gpu_count,
    };
    part_add(f, node, gang, gang->part_count);
    fleet_after(f, f->setup->launch_ms, part_started, gang->index, gang->part_count);
    gang->part_count++;
}

/* Asked to stop in the midst of work: the gang saves first, if there is time. */
static bool save_first(struct fleet *f, struct fgang *gang, int64_t grace_ms)
{
    const struct fleet_job *job = &f->jobs[gang->job];
    return job->has_train && gang->state == GANG_WORKING && grace_ms >= job->save_write_ms;
}

static void part_stopped(struct fleet *f, uint64_t index, uint64_t part, void *payload)
{
    (void)payload;
    struct fgang *gang = gang_of(f, index);
    if (gang != NULL && !gang->parts[part].gone) {
        bool saved = gang->saving;
        part_end(f, gang, (uint32_t)part, saved ? PREEMPTED_AND_SAVED : -1, saved ? 0 : 15);
        gang_settle(f, gang);
    }
}

void node_order_stop(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch,
                     int64_t grace_ms)
{
    struct fgang *gang;
    struct fpart *part = node_part(f, node, id, epoch, &gang);
    if (part == NULL) {
        struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = node->session};
        in.u.attempt = (struct input_attempt_report){.job = id, .epoch = epoch, .phase = 3};
        fleet_input(f, &in);
        return;
    }
    bool saves = save_first(f, gang, grace_ms);
    gang_halt(f, gang);
    if (saves) {
        gang_save_now(f, gang);
    }
    if (part->state == PART_ENDED) {
        part_report(f, gang, part);
    } else if (!part->stopping) {
        part->stopping = true;
        struct input in = {.kind = INPUT_STOP_ACKED, .session = node->session};
        in.u.acked.job = id;
        in.u.acked.epoch = epoch;
        fleet_input(f, &in);
        int64_t wait_ms = gang->saving ? f->jobs[gang->job].save_write_ms : f->setup->stop_ms;
        fleet_after(f, wait_ms, part_stopped, gang->index, (uint64_t)(part - gang->parts));
    }
}
