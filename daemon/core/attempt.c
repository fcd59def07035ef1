#include "daemon/core/attempt.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/checkpoint.h"
#include "daemon/core/job.h"
#include "daemon/core/ledger.h"
#include "daemon/core/node.h"
#include "daemon/core/quarantine.h"
#include "daemon/core/recover.h"
#include "daemon/core/topology.h"
#include "lib/err.h"
#include "lib/mem.h"

#define PORT_FIRST     20000 /* below the ports that the kernel hands out */
#define PORT_COUNT     10000
#define FAIL_GRACE_MS  2000 /* a rank whose gang is broken has nothing left to save */
#define LAST_WORDS_MAX 4096

/* ---------------------------------------------------------------- memory */

struct attempt *attempt_create(struct job *job, uint32_t node_count, uint32_t gpus_per_node)
{
    struct attempt *attempt = mem_alloc(sizeof *attempt);
    uint32_t per_node = gpus_per_node > 0 ? gpus_per_node : 1;
    attempt->job = job;
    attempt->node_count = node_count;
    attempt->world_size = node_count * per_node;
    attempt->allocation_count = node_count * gpus_per_node;
    attempt->nodes = mem_alloc_array(node_count, sizeof *attempt->nodes);
    attempt->allocations = mem_alloc_array(attempt->allocation_count, sizeof *attempt->allocations);
    attempt->exits = mem_alloc_array(attempt->world_size, sizeof *attempt->exits);
    for (uint32_t i = 0; i < node_count; i++) {
        struct attempt_node *an = &attempt->nodes[i];
        an->attempt = attempt;
        an->row.node_rank = i;
        an->rank_first = i * per_node;
        an->rank_count = per_node;
        an->gpu_count = gpus_per_node;
        an->allocations = attempt->allocations + (size_t)i * gpus_per_node;
    }
    return attempt;
}

void attempt_destroy(void *object)
{
    struct attempt *attempt = object;
    if (attempt == NULL) {
        return;
    }
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        row_fini(&tables[TABLE_ATTEMPT_NODE], &attempt->nodes[i].row);
    }
    for (uint32_t i = 0; i < attempt->world_size; i++) {
        row_fini(&tables[TABLE_RANK_EXIT], &attempt->exits[i].row);
    }
    row_fini(&tables[TABLE_ATTEMPT], &attempt->row);
    free(attempt->nodes);
    free(attempt->allocations);
    free(attempt->exits);
    free(attempt);
}

bool attempt_node_is_live(const struct attempt_node *an)
{
    return an->row.phase != PHASE_ENDED && an->row.phase != PHASE_LOST;
}

void attempt_node_link(struct attempt_node *an)
{
    struct attempt_node **end = &an->node->first;
    an->prev = NULL;
    while (*end != NULL) {
        an->prev = *end;
        end = &(*end)->next;
    }
    *end = an;
    an->next = NULL;
    an->node->hosted += an->gpu_count == 0 ? an->rank_count : 0;
}

void attempt_node_unlink(struct attempt_node *an)
{
    *(an->prev != NULL ? &an->prev->next : &an->node->first) = an->next;
    if (an->next != NULL) {
        an->next->prev = an->prev;
    }
    an->prev = an->next = NULL;
    an->node->hosted -= an->gpu_count == 0 ? an->rank_count : 0;
}

struct attempt_node *attempt_find_node(const struct core *core, const struct node *node,
                                       uint64_t job, uint64_t epoch)
{
    (void)core;
    for (struct attempt_node *an = node->first; an != NULL; an = an->next) {
        if (an->row.job_id == job && an->row.epoch == epoch) {
            return an;
        }
    }
    return NULL;
}

void attempt_nodes_text(const struct attempt *attempt, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        const char *name = attempt->nodes[i].node->row.name;
        if (used + strlen(name) + 16 > text_bytes) {
            snprintf(text + used, text_bytes - used, " +%" PRIu32, attempt->node_count - i);
            return;
        }
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%s", i > 0 ? "," : "", name);
    }
}

bool attempt_succeeded(const struct attempt *attempt)
{
#ifdef MUTANT_completed_early
    return attempt->nodes[0].row.phase == PHASE_ENDED;
#endif
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        if (attempt->nodes[i].row.phase != PHASE_ENDED) {
            return false;
        }
    }
    for (uint32_t i = 0; i < attempt->world_size; i++) {
        const struct rank_exit *x = &attempt->exits[i];
        if (!x->known || x->row.code != 0 || x->row.signal != 0) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- orders */

/* The parts of a gang share one copy: that of 16,384 ranks is some megabytes. */
static const char *resume_manifest(struct core *core, const struct ckpt *resume)
{
    const struct effect_list *list = &core->effects;
    const struct effect *last = list->count > 0 ? &list->items[list->count - 1] : NULL;
    if (last != NULL && last->kind == EFFECT_ATTEMPT_START &&
        last->u.start.resume_ckpt == resume->row.id) {
        return last->u.start.resume_manifest;
    }
    return ckpt_manifest(core, resume);
}

static void order_start(struct core *core, const struct attempt_node *an)
{
    if (an->node->session == 0) {
        return;
    }
    const struct attempt *attempt = an->attempt;
    const struct job *job = attempt->job;
    char dir[4096];
    ckpt_attempt_dir(core, job, attempt, dir, sizeof dir);
    uint32_t gpu_index[NODE_GPUS_MAX];
    assert(an->gpu_count <= NODE_GPUS_MAX);
    for (uint32_t i = 0; i < an->gpu_count; i++) {
        gpu_index[i] = (uint32_t)an->allocations[i].gpu->row.idx;
    }
    struct effect_list *list = &core->effects;
    struct effect_start start = {
        .job = job->row.id,
        .epoch = attempt->row.epoch,
        .name = effect_list_text(list, job->row.name),
        .user = effect_list_text(list, job->row.user),
        .spec_json = effect_list_text(list, job->row.spec),
        .model_json = effect_list_text(list, job->row.model_json),
        .workdir = effect_list_text(list, job->row.workdir),
        .node_rank = (uint32_t)an->row.node_rank,
        .node_count = attempt->node_count,
        .rank_first = an->rank_first,
        .world_size = attempt->world_size,
        .gpu_index = effect_list_u32(list, gpu_index, an->gpu_count),
        .gpu_count = an->gpu_count,
        .master_addr = effect_list_text(list, attempt->nodes[0].node->row.addr),
        .master_port = (uint32_t)attempt->row.master_port,
        .checkpoint_dir = effect_list_text(list, dir),
        .array_job = job->row.array_id,
        .array_index = job->row.array_id != 0 ? (uint32_t)job->row.array_index : 0,
        .array_size = (uint32_t)job->row.array_size,
    };
    const struct ckpt *resume = core_ckpt(core, attempt->row.resume_ckpt_id);
    if (resume != NULL && resume->row.state == CKPT_COMMITTED) {
        start.resume_ckpt = resume->row.id;
        start.resume_step = (uint64_t)resume->row.step;
        start.resume_path = effect_list_text(list, resume->row.path);
        start.resume_manifest = resume_manifest(core, resume);
    }
    effect_list_add(list, EFFECT_ATTEMPT_START, an->node->session)->u.start = start;
}

static void add_stop(struct core *core, enum effect_kind kind, session_id session, uint64_t job,
                     uint64_t epoch, int64_t grace_ms, const char *reason)
{
    const char *text = effect_list_text(&core->effects, reason);
    struct effect *effect = effect_list_add(&core->effects, kind, session);
    effect->u.stop.job = job;
    effect->u.stop.epoch = epoch;
    effect->u.stop.grace_ms = (uint64_t)grace_ms;
    effect->u.stop.reason = text;
}

static void order_stop(struct core *core, const struct attempt_node *an)
{
    if (an->node->session == 0) {
        return;
    }
    const struct attempt_row *row = &an->attempt->row;
    int64_t grace_ms = row->failing_ms != ROW_NONE ? FAIL_GRACE_MS : row->stop_grace_ms;
    add_stop(core, EFFECT_ATTEMPT_STOP, an->node->session, row->job_id, row->epoch, grace_ms,
             row->cause);
}

void attempt_refuse_report(struct core *core, struct node *node,
                           const struct input_attempt_report *report)
{
    enum effect_kind kind = report->phase == 3 ? EFFECT_ATTEMPT_FORGET : EFFECT_ATTEMPT_STOP;
    add_stop(core, kind, node->session, report->job, report->epoch, FAIL_GRACE_MS,
             "this attempt is over");
}

void attempt_redrive(struct core *core, struct attempt_node *an)
{
    if (an->attempt->row.state == ATTEMPT_STOPPING) {
        order_stop(core, an);
    } else if (an->row.phase == PHASE_ORDERED) {
        order_start(core, an);
    }
}

/* ---------------------------------------------------------------- start */

static bool port_is_taken(const struct node *node, int64_t port)
{
    for (const struct attempt_node *an = node->first; an != NULL; an = an->next) {
        if (an->row.node_rank == 0 && an->attempt->row.master_port == port) {
            return true;
        }
    }
    return false;
}

/* Spread over the range, so that a port still in TIME_WAIT is rarely met; differs from all others
 * in use on the node. */
static int64_t choose_port(const struct node *node, uint64_t job, uint64_t epoch)
{
    int64_t port = (int64_t)((job * 17 + epoch) % PORT_COUNT);
    while (port_is_taken(node, PORT_FIRST + port)) {
        port = (port + 1) % PORT_COUNT;
    }
    return PORT_FIRST + port;
}

static void allocate(struct core *core, struct attempt_node *an)
{
    uint32_t taken = 0;
    enum category category = an->row.epoch == 1 ? CATEGORY_INIT : CATEGORY_RECOVERY;
    for (size_t i = 0; i < an->node->gpu_count && taken < an->gpu_count; i++) {
        struct gpu *gpu = an->node->gpus[i];
        if (!gpu_is_free(gpu)) {
            continue;
        }
        struct allocation *allocation = &an->allocations[taken];
        allocation->gpu = gpu;
        allocation->row = (struct allocation_row){.job_id = an->row.job_id,
                                                  .epoch = an->row.epoch,
                                                  .gpu_id = gpu->row.id,
                                                  .node_rank = an->row.node_rank,
                                                  .local_rank = taken++,
                                                  .released_ms = ROW_NONE};
        gpu->allocation = allocation;
        core_mark(core, TABLE_ALLOCATION, &allocation->row);
        meter_switch(core, gpu, category, an->row.job_id, an->row.epoch, INT64_MAX);
    }
    node_recount(an->node);
    assert(taken == an->gpu_count); /* the plan was made on this very state */
}

void attempt_start(struct core *core, struct job *job, struct node *const *nodes,
                   uint32_t node_count)
{
    if (job->attempt != NULL) {
        core_discard(core, attempt_destroy, job->attempt);
    }
    const struct ckpt *resume = ckpt_newest(job);
    struct attempt *attempt = attempt_create(job, node_count, (uint32_t)job->row.gpus_per_node);
    job->attempt = attempt;
    job->row.epoch++;
    ckpt_epoch_over(core, job);
    uint64_t epoch = (uint64_t)job->row.epoch;
    attempt->row = (struct attempt_row){
        .job_id = job->row.id,
        .epoch = epoch,
        .state = ATTEMPT_STARTING,
        .term = (int64_t)core->term,
        .started_ms = core->now_ms,
        .first_step_ms = ROW_NONE,
        .failing_ms = ROW_NONE,
        .ended_ms = ROW_NONE,
        .first_step = ROW_NONE,
        .last_step = ROW_NONE,
        .lost_steps = ROW_NONE,
        .detect_ms = ROW_NONE,
        .restart_ms = ROW_NONE,
        .resume_ckpt_id = resume != NULL ? resume->row.id : 0,
        .resume_step = resume != NULL ? resume->row.step : ROW_NONE,
        .master_port = choose_port(nodes[0], job->row.id, epoch),
        .nodes = node_count,
        .stop_ms = ROW_NONE,
        .stop_acked_ms = ROW_NONE,
        .saved_ms = ROW_NONE,
        .crossings = topology_crossings(nodes, node_count),
        .guard_back_to = ROW_NONE,
    };
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
    for (uint32_t i = 0; i < node_count; i++) {
        struct attempt_node *an = &attempt->nodes[i];
        an->node = nodes[i];
        an->row.job_id = job->row.id;
        an->row.epoch = epoch;
        an->row.node_id = nodes[i]->row.id;
        an->row.phase = PHASE_ORDERED;
        core_mark(core, TABLE_ATTEMPT_NODE, &an->row);
        attempt_node_link(an);
        allocate(core, an);
    }
    job_started(core, job);
    char names[256], from[64] = "";
    attempt_nodes_text(attempt, names, sizeof names);
    if (resume != NULL) {
        snprintf(from, sizeof from, ", from the checkpoint of step %" PRId64, resume->row.step);
    }
    core_event(core, "job.starting", job->row.id, epoch, 0, "job %" PRIu64 " (%s) starts on %s%s",
               job->row.id, job->row.name, names, from);
    for (uint32_t i = 0; i < node_count; i++) {
        order_start(core, &attempt->nodes[i]);
    }
}

/* ---------------------------------------------------------------- end */

/* Up to when the attempt's work is not lost by ending now. */
static int64_t kept_ms(const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    if (attempt->row.state != ATTEMPT_STOPPING ||
        (job->row.stop_cause != NULL && strcmp(job->row.stop_cause, "cancel") == 0)) {
        return INT64_MAX;
    }
    const struct ckpt *ckpt = ckpt_newest_of_epoch(job, attempt->row.epoch);
    return ckpt != NULL ? ckpt->row.step_at_ms : INT64_MIN;
}

static void set_stopping(struct core *core, struct attempt *attempt, const char *cause,
                         const char *stop_cause)
{
    attempt->row.state = ATTEMPT_STOPPING;
    attempt->row.stop_ms = core->now_ms;
    attempt->row.stop_grace_ms = job_cause_is_soft(stop_cause) ? attempt_save_ms(core, attempt->job)
                                                               : core->config.stop_grace_ms;
    row_set_text(&attempt->row.cause, cause);
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
    job_stopping(core, attempt->job, stop_cause);
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        if (attempt_node_is_live(&attempt->nodes[i])) {
            order_stop(core, &attempt->nodes[i]);
        }
    }
}

/* The first sign of an end nobody asked for. sign_ms: when it happened, as far as is known. */
static void fail(struct core *core, struct attempt *attempt, const char *cause, int64_t sign_ms,
                 const char *text)
{
    if (attempt->row.state == ATTEMPT_STOPPING) {
        return;
    }
    attempt->row.failing_ms = core->now_ms;
    attempt->row.detect_ms = sign_ms < core->now_ms ? core->now_ms - sign_ms : 0;
    set_stopping(core, attempt, cause, "failure");
    int64_t kept = kept_ms(attempt);
    for (uint32_t i = 0; i < attempt->allocation_count; i++) {
        struct allocation *allocation = &attempt->allocations[i];
        if (allocation->gpu->allocation == allocation) {
            meter_switch(core, allocation->gpu, CATEGORY_RECOVERY, attempt->row.job_id,
                         attempt->row.epoch, kept);
        }
    }
    struct effect *over = effect_list_add(&core->effects, EFFECT_EPOCH_OVER, 0);
    over->u.stop.job = attempt->row.job_id;
    over->u.stop.epoch = attempt->row.epoch;
    core_event(core, "attempt.failing", attempt->row.job_id, attempt->row.epoch, 0,
               "attempt %" PRIu64 " of job %" PRIu64 " fails: %s", attempt->row.epoch,
               attempt->row.job_id, text);
}

static void release(struct core *core, struct attempt_node *an)
{
    int64_t kept = kept_ms(an->attempt);
    for (uint32_t i = 0; i < an->gpu_count; i++) {
        struct allocation *allocation = &an->allocations[i];
        allocation->row.released_ms = core->now_ms;
        core_mark(core, TABLE_ALLOCATION, &allocation->row);
        node_free_gpu(core, allocation->gpu, kept);
    }
    attempt_node_unlink(an);
    node_settle(core, an->node);
}

static void finish_when_all_ended(struct core *core, struct attempt *attempt)
{
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        if (attempt_node_is_live(&attempt->nodes[i])) {
            return;
        }
    }
    struct job *job = attempt->job;
    const struct ckpt *newest = ckpt_newest(job);
    attempt->row.state = ATTEMPT_ENDED;
    attempt->row.ended_ms = core->now_ms;
    if (attempt->row.last_step != ROW_NONE && !attempt_succeeded(attempt)) {
        int64_t safe = newest != NULL ? newest->row.step : 0;
        attempt->row.lost_steps = attempt->row.last_step > safe ? attempt->row.last_step - safe : 0;
    }
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
    job->row.ran_ms += core->now_ms - attempt->row.started_ms;
    ckpt_drop_unfinished(core, job, attempt->row.epoch);
    if (attempt->row.failing_ms == ROW_NONE) {
        struct effect *over = effect_list_add(&core->effects, EFFECT_EPOCH_OVER, 0);
        over->u.stop.job = attempt->row.job_id;
        over->u.stop.epoch = attempt->row.epoch;
    }
    job_attempt_ended(core, job);
}

static void end_node(struct core *core, struct attempt_node *an)
{
    struct attempt *attempt = an->attempt;
    attempt->ending_ms = attempt->ending_ms != 0 ? attempt->ending_ms : core->now_ms;
    an->row.phase = PHASE_ENDED;
    core_mark(core, TABLE_ATTEMPT_NODE, &an->row);
    if (an->node->session != 0) {
        add_stop(core, EFFECT_ATTEMPT_FORGET, an->node->session, an->row.job_id, an->row.epoch, 0,
                 "recorded");
    }
    release(core, an);
    finish_when_all_ended(core, attempt);
}

void attempt_stop(struct core *core, struct attempt *attempt, const char *cause)
{
    set_stopping(core, attempt, cause, cause);
}

void attempt_lost(struct core *core, struct attempt_node *an, int64_t seen_ms, const char *why)
{
    char text[256];
    snprintf(text, sizeof text, "node %s is lost: %s", an->node->row.name, why);
    an->row.phase = PHASE_LOST;
    row_set_text(&an->row.error, why);
    core_mark(core, TABLE_ATTEMPT_NODE, &an->row);
    fail(core, an->attempt, "node_lost", seen_ms, text);
    release(core, an);
    finish_when_all_ended(core, an->attempt);
}

void attempt_not_listed(struct core *core, struct attempt_node *an)
{
    if (an->row.phase != PHASE_ORDERED) {
        attempt_lost(core, an, an->node->row.last_seen_ms,
                     "its worker came back without the attempt");
    } else if (an->attempt->row.state == ATTEMPT_STOPPING) {
        row_set_text(&an->row.error, "stopped before the order to start arrived");
        end_node(core, an);
    }
}

/* ---------------------------------------------------------------- reports */

static void record_exit(struct core *core, struct attempt_node *an, const struct input_exit *seen)
{
    if (seen->rank < an->rank_first || seen->rank - an->rank_first >= an->rank_count) {
        return;
    }
    struct rank_exit *x = &an->attempt->exits[seen->rank];
    if (x->known) {
        return;
    }
    x->known = true;
    x->row.job_id = an->row.job_id;
    x->row.epoch = an->row.epoch;
    x->row.rank = seen->rank;
    x->row.code = seen->code;
    x->row.signal = seen->signal;
    /* Not later than we hear of it, whatever the node's clock says: what comes after the first sign
     * of failure is taken for our own doing. */
    x->row.at_ms = seen->at_ms < core->now_ms ? seen->at_ms : core->now_ms;
    if (seen->last_words != NULL && seen->last_words[0] != 0) {
        /* The end says more than the beginning. */
        size_t len = strlen(seen->last_words);
        row_set_text(&x->row.last_words,
                     seen->last_words + (len > LAST_WORDS_MAX ? len - LAST_WORDS_MAX : 0));
    }
    core_mark(core, TABLE_RANK_EXIT, &x->row);
}

/* Ranks that a node with no ranks left said nothing about. */
static void record_unknown_exits(struct core *core, struct attempt_node *an)
{
    for (uint32_t i = 0; i < an->rank_count; i++) {
        record_exit(
            core, an,
            &(struct input_exit){.rank = an->rank_first + i, .code = -1, .at_ms = core->now_ms});
    }
}

static void fail_on_bad_exit(struct core *core, struct attempt_node *an)
{
    for (uint32_t i = 0; i < an->rank_count; i++) {
        const struct rank_exit *x = &an->attempt->exits[an->rank_first + i];
        if (x->known && (x->row.code != 0 || x->row.signal != 0)) {
            char how[64], text[160];
            exit_text(&x->row, how, sizeof how);
            snprintf(text, sizeof text, "rank %" PRId64 " on %.80s %s", x->row.rank,
                     an->node->row.name, how);
            fail(core, an->attempt, "rank_failed", x->row.at_ms, text);
            return;
        }
    }
}

static void run_when_all_started(struct core *core, struct attempt *attempt)
{
    if (attempt->row.state != ATTEMPT_STARTING) {
        return;
    }
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        const struct attempt_node *an = &attempt->nodes[i];
        if (an->row.phase == PHASE_ORDERED || an->row.phase == PHASE_ACCEPTED) {
            return;
        }
    }
    attempt->row.state = ATTEMPT_RUNNING;
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
    job_running(core, attempt->job);
}

void attempt_apply_report(struct core *core, struct attempt_node *an,
                          const struct input_attempt_report *report)
{
    static const enum phase phases[] = {PHASE_ORDERED, PHASE_ACCEPTED, PHASE_STARTED, PHASE_ENDED};
    assert(attempt_node_is_live(an));
    enum phase phase = phases[report->phase <= 3 ? report->phase : 0];
    for (size_t i = 0; i < report->exit_count; i++) {
        record_exit(core, an, &report->exits[i]);
    }
    if (report->stuck != NULL && report->stuck[0] != 0 && phase != PHASE_ENDED) {
        quarantine_stuck(core, an, report->stuck);
        return;
    }
    bool has_error = report->error != NULL && report->error[0] != 0;
    if (phase == PHASE_ENDED && !has_error) {
        record_unknown_exits(core, an);
    }
    if (has_error) {
        char text[400];
        snprintf(text, sizeof text, "node %.80s could not start it: %.280s", an->node->row.name,
                 report->error);
        row_set_text(&an->row.error, report->error);
        core_mark(core, TABLE_ATTEMPT_NODE, &an->row);
        fail(core, an->attempt, "start_failed", core->now_ms, text);
    }
    fail_on_bad_exit(core, an);
    if (phase > an->row.phase) {
        an->row.phase = phase == PHASE_ENDED ? PHASE_STARTED : phase; /* what ended had started */
        core_mark(core, TABLE_ATTEMPT_NODE, &an->row);
        run_when_all_started(core, an->attempt);
    }
    if (phase == PHASE_ENDED) {
        end_node(core, an);
    }
}

void attempt_report(struct core *core, const struct input *in)
{
    struct node *node = core_node_of_session(core, in->session);
    if (node == NULL) {
        core_reply(core, in, ERR_AGAIN, "this connection is not registered: register first");
        return;
    }
    const struct input_attempt_report *report = &in->u.attempt;
    core_reply(core, in, 0, "%s", "");
    struct attempt_node *an = attempt_find_node(core, node, report->job, report->epoch);
    if (an != NULL) {
        attempt_apply_report(core, an, report);
        return;
    }
    attempt_refuse_report(core, node, report);
    if (report->phase == 3) {
        node_leftover_ended(core, node, report->job, report->epoch);
    }
}
