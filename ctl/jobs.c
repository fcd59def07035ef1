#include "ctl/jobs.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/ckpts.h"
#include "ctl/events.h"
#include "ctl/nodes.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "lib/clock.h"
#include "proto/format.h"
#include "proto/pick.h"

/* ---- the row */

static json_t *gpus_of(const json_t *job)
{
    return json_integer(pick_int(job, "nodes_requested") * pick_int(job, "gpus_per_node"));
}

/* Since the first start, waiting between attempts included. */
static json_t *elapsed_of(const json_t *job)
{
    int64_t start_ms = 0;
    int64_t end_ms = clock_wall_ms();
    if (!pick_time(job, "started_at", &start_ms)) {
        return json_null();
    }
    pick_time(job, "ended_at", &end_ms);
    return json_integer(end_ms > start_ms ? end_ms - start_ms : 0);
}

static void step_cell(struct buf *out, const json_t *job, const json_t *step)
{
    int64_t steps = pick_int(job, "progress.steps");
    if (json_integer_value(step) == 0 && steps == 0) {
        return; /* a command that reports no steps */
    }
    buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(step));
    if (steps > 0) {
        buf_printf(out, "/%" PRId64, steps);
    }
}

/* The array's first job and the index in it: 12_3. */
static void array_cell(struct buf *out, const json_t *job, const json_t *array)
{
    buf_printf(out, "%" JSON_INTEGER_FORMAT "_%" PRId64, json_integer_value(array),
               pick_int(job, "array_index"));
}

static const struct column job_columns[] = {
    {"ID", "id", COLUMN_RIGHT, NULL, NULL},
    {"NAME", "name", COLUMN_LONG, NULL, NULL},
    {"USER", "user", COLUMN_LONG, NULL, NULL},
    {"ACCOUNT", "account", COLUMN_WIDE, NULL, NULL},
    {"QUEUE", "queue", COLUMN_SPARE | COLUMN_LONG, NULL, NULL},
    {"STAGE", "stage", COLUMN_WIDE, NULL, NULL},
    {"STATE", "state", COLUMN_STATE, NULL, NULL},
    {"PRIO", "priority", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"NODES", "nodes_requested", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"GPUS", "gpus", COLUMN_RIGHT, NULL, gpus_of},
    {"ATTEMPT", "attempt", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"STEP", "progress.step", COLUMN_RIGHT, step_cell, NULL},
    {"STEPS", "progress.steps", COLUMN_CSV, NULL, NULL},
    {"LOSS", "progress.loss", COLUMN_RIGHT, cell_loss, NULL},
    {"TOKENS/S", "progress.tokens_per_s", COLUMN_RIGHT | COLUMN_WIDE, cell_count, NULL},
    {"CKPT", "last_checkpoint.step", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"CKPT-AGE", "last_checkpoint.committed_at", COLUMN_RIGHT | COLUMN_WIDE, cell_age, NULL},
    {"GPU-HOURS", "usage.gpu_ms", COLUMN_RIGHT | COLUMN_WIDE, cell_gpu_hours, NULL},
    {"COST", "usage.cost_micro_usd", COLUMN_RIGHT | COLUMN_WIDE, cell_usd, NULL},
    {"SUBMITTED", "submitted_at", COLUMN_CSV, NULL, NULL},
    {"STARTED", "started_at", COLUMN_CSV, NULL, NULL},
    {"ENDED", "ended_at", COLUMN_CSV, NULL, NULL},
    {"ARRAY", "array", COLUMN_WIDE, array_cell, NULL},
    {"ARRAY-INDEX", "array_index", COLUMN_CSV, NULL, NULL},
    {"DEPENDENCY", "dependency", COLUMN_WIDE, NULL, NULL},
    {"EXPECTED", "expected_start_at", COLUMN_WIDE, cell_time, NULL},
    {"ELAPSED", "elapsed_ms", COLUMN_RIGHT, cell_duration, elapsed_of},
    {"NODELIST", "nodes", COLUMN_WIDE, cell_nodes, NULL},
    {"REASON", "reason.text", 0, NULL, NULL},
};
static const char *const job_also[] = {"gpus_per_node", "nodes_requested", "started_at", "ended_at",
                                       NULL};
const struct listing job_listing = LISTING_ALSO("job", "id", job_columns, job_also);

/* ---- the page */

static void resumed_cell(struct buf *out, const json_t *attempt, const json_t *step)
{
    (void)attempt;
    buf_printf(out, "step %" JSON_INTEGER_FORMAT, json_integer_value(step));
}

/* Without the day when that is the day of the start. */
static void end_cell(struct buf *out, const json_t *attempt, const json_t *value)
{
    struct buf start = {0};
    struct buf end = {0};
    cell_time(&start, attempt, pick(attempt, "started_at"));
    cell_time(&end, attempt, value);
    bool same_day = start.len > 11 && end.len > 11 && memcmp(start.data, end.data, 11) == 0;
    buf_append_str(out, buf_cstr(&end) + (same_day ? 11 : 0));
    buf_fini(&start);
    buf_fini(&end);
}

static const struct column attempt_columns[] = {
    {"ATTEMPT", "attempt", COLUMN_RIGHT, NULL, NULL},
    {"STATE", "state", COLUMN_STATE | COLUMN_WIDE, NULL, NULL},
    {"NODES", "nodes", COLUMN_LONG, cell_nodes, NULL},
    {"START", "started_at", COLUMN_SPARE, cell_time, NULL},
    {"END", "ended_at", COLUMN_SPARE, end_cell, NULL},
    {"RESUMED-FROM", "resume_step", 0, resumed_cell, NULL},
    {"CKPT", "resume_ckpt", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"FIRST", "first_step", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"LAST", "last_step", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"LOST", "lost_steps", COLUMN_RIGHT, NULL, NULL},
    {"DETECT", "detect_ms", COLUMN_RIGHT, cell_duration, NULL},
    {"RESTART", "restart_ms", COLUMN_RIGHT, cell_duration, NULL},
    {"CROSSINGS", "crossings", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"CAUSE", "cause", 0, NULL, NULL},
};

static void append_ownership(struct buf *out, const json_t *job)
{
    page_label(out, "user");
    text_append_clean(out, pick_text(job, "user"));
    buf_append_str(out, ", account ");
    text_append_clean(out, pick_text(job, "account"));
    buf_append_str(out, ", queue ");
    text_append_clean(out, pick_text(job, "queue"));
    buf_append_str(out, ", stage ");
    text_append_clean(out, pick_text(job, "stage"));
    buf_printf(out, ", priority %" PRId64 "\n", pick_int(job, "priority"));
}

static void append_place(struct buf *out, const json_t *job)
{
    int64_t nodes = pick_int(job, "nodes_requested");
    int64_t gpus = pick_int(job, "gpus_per_node");
    page_label(out, "asked for");
    buf_printf(out, "%" PRId64 " node%s with %" PRId64 " GPU%s each\n", nodes,
               nodes == 1 ? "" : "s", gpus, gpus == 1 ? "" : "s");
    int64_t min = pick_int(job, "nodes_min"), max = pick_int(job, "nodes_max");
    if (max > min) {
        page_label(out, "elastic");
        buf_printf(out, "%" PRId64 " to %" PRId64 " nodes\n", min, max);
    }
    if (json_array_size(pick(job, "nodes")) > 0) {
        page_label(out, "nodes");
        nodes_append(out, pick(job, "nodes"));
        buf_append_str(out, "\n");
    }
}

/* What it has to wait for, and by when. */
static void append_terms(struct buf *out, const json_t *job)
{
    int64_t limit_ms = pick_int(job, "time_limit_ms");
    if (pick(job, "array") != NULL) {
        page_label(out, "array");
        buf_printf(out, "index %" PRId64 " of array %" PRId64 " (%" PRId64 " jobs",
                   pick_int(job, "array_index"), pick_int(job, "array"),
                   pick_int(job, "array_size"));
        if (pick(job, "array_limit") != NULL) {
            buf_printf(out, ", %" PRId64 " at a time", pick_int(job, "array_limit"));
        }
        buf_append_str(out, ")\n");
    }
    page_text(out, "depends on", pick_text(job, "dependency"));
    page_time(out, "not before", job, "not_before_at");
    page_time(out, "deadline", job, "deadline_at");
    if (limit_ms > 0) {
        page_label(out, "time limit");
        format_duration(out, limit_ms);
        buf_append_str(out, "\n");
    }
    if (pick_int(job, "preempted") > 0) {
        page_label(out, "preempted");
        buf_printf(out, "%" PRId64 " times\n", pick_int(job, "preempted"));
    }
}

void job_expected(struct buf *out, const json_t *job)
{
    int64_t start_ms = 0;
    if (pick_time(job, "expected_start_at", &start_ms)) {
        page_label(out, "expected");
        buf_append_str(out, "to start about ");
        format_time(out, start_ms);
        buf_append_str(out, "\n");
    }
}

static void append_exit(struct buf *out, const json_t *job)
{
    const char *kind = pick_text(job, "exit.class");
    int64_t signal = pick_int(job, "exit.signal");
    if (pick(job, "exit") == NULL) {
        return;
    }
    /* While it goes on, that of the attempt before. */
    page_label(out, job_has_ended(pick_text(job, "state")) ? "exit" : "last exit");
    if (signal != 0) {
        const char *name = sigabbrev_np((int)signal);
        buf_printf(out, "signal %" PRId64, signal);
        if (name != NULL) {
            buf_printf(out, " (SIG%s)", name);
        }
    } else {
        buf_printf(out, "status %" PRId64, pick_int(job, "exit.code"));
    }
    if (kind[0] != 0) {
        buf_append_str(out, ", ");
        text_append_clean(out, kind);
    }
    buf_append_str(out, "\n");
}

static void append_number(struct buf *out, const json_t *job, const char *path, const char *name,
                          const char *separator)
{
    const json_t *value = pick(job, path);
    if (value != NULL) {
        buf_printf(out, "%s%s%.4f", separator, name, json_number_value(value));
    }
}

static void append_progress(struct buf *out, const json_t *job)
{
    uint64_t step = pick_count(job, "progress.step");
    uint64_t steps = pick_count(job, "progress.steps");
    double rate = json_number_value(pick(job, "progress.tokens_per_s"));
    uint64_t tokens = pick_count(job, "progress.tokens");
    if (step == 0 && steps == 0) {
        return;
    }
    page_label(out, "progress");
    buf_printf(out, "step %" PRIu64, step);
    if (steps > 0) {
        buf_printf(out, " of %" PRIu64 " (", steps);
        format_percent(out, step, steps);
        buf_append_str(out, ")");
    }
    if (tokens > 0) {
        buf_append_str(out, ", ");
        format_count(out, (double)tokens);
        buf_append_str(out, " tokens");
    }
    if (rate > 0) {
        buf_append_str(out, ", ");
        format_count(out, rate);
        buf_append_str(out, " tokens/s");
    }
    if (rate > 0 && step > 0 && steps > step && strcmp(pick_text(job, "state"), "RUNNING") == 0) {
        double seconds_left = (double)tokens / (double)step * (double)(steps - step) / rate;
        buf_append_str(out, ", about ");
        format_duration(out, seconds_left < 1e12 ? (int64_t)(seconds_left * 1000) : INT64_MAX);
        buf_append_str(out, " left");
    }
    buf_append_str(out, "\n");
    if (pick(job, "progress.loss") != NULL) {
        page_label(out, "loss");
        append_number(out, job, "progress.loss", "", "");
        append_number(out, job, "progress.valid_loss", "validation ", ", ");
        append_number(out, job, "progress.mtp_loss", "MTP ", ", ");
        append_number(out, job, "progress.grad_norm", "gradient norm ", ", ");
        buf_append_str(out, "\n");
    }
}

static void append_checkpoint(struct buf *out, const json_t *job)
{
    int64_t at_ms = 0;
    if (pick(job, "last_checkpoint") == NULL) {
        return;
    }
    page_label(out, "checkpoint");
    buf_printf(out, "%" PRId64 ", of step %" PRId64, pick_int(job, "last_checkpoint.id"),
               pick_int(job, "last_checkpoint.step"));
    if (pick_time(job, "last_checkpoint.committed_at", &at_ms)) {
        buf_append_str(out, ", ");
        format_duration(out, clock_wall_ms() - at_ms);
        buf_append_str(out, " ago");
    }
    buf_append_str(out, "\n");
}

static void append_usage(struct buf *out, const json_t *job)
{
    uint64_t gpu_ms = pick_count(job, "usage.gpu_ms");
    if (pick(job, "usage") == NULL) {
        return;
    }
    page_label(out, "cost");
    format_usd(out, pick_int(job, "usage.cost_micro_usd"));
    buf_append_str(out, " for ");
    format_gpu_hours(out, gpu_ms);
    buf_append_str(out, " GPU-hours");
    if (gpu_ms > 0) {
        buf_append_str(out, ", ");
        format_percent(out, pick_count(job, "usage.productive_gpu_ms"), gpu_ms);
        buf_append_str(out, " of them productive");
    }
    buf_append_str(out, "\n");
}

void job_page(const struct output *o, struct buf *out, const json_t *job)
{
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, pick_int(job, "id"));
    page_title(o, out, "job", id, pick_text(job, "name"), pick_text(job, "state"));
    page_text(out, "reason", pick_text(job, "reason.text"));
    append_ownership(out, job);
    append_place(out, job);
    append_terms(out, job);
    page_time(out, "submitted", job, "submitted_at");
    job_expected(out, job);
    if (pick(job, "ended_at") == NULL) {
        page_time(out, "last pass", job, "scheduled_at");
    }
    page_time(out, "started", job, "started_at");
    page_time(out, "ended", job, "ended_at");
    append_exit(out, job);
    append_progress(out, job);
    append_checkpoint(out, job);
    page_label(out, "restarts");
    buf_printf(out, "%" PRId64 "\n", pick_int(job, "restarts"));
    append_usage(out, job);
    page_text(out, "workdir", pick_text(job, "workdir"));
    page_table(o, out, "attempts", json_object_get(job, "attempts"), attempt_columns,
               sizeof attempt_columns / sizeof attempt_columns[0]);
    ckpt_table(o, out, json_object_get(job, "checkpoints"));
    event_table(o, out, "timeline", json_object_get(job, "events"));
}

/* ---- the end */

bool job_has_ended(const char *state)
{
    return strcmp(state, "COMPLETED") == 0 || strcmp(state, "FAILED") == 0 ||
           strcmp(state, "CANCELLED") == 0;
}

int job_verdict(const Ds__Job *job, struct err *err)
{
    if (strcmp(job->state, "COMPLETED") == 0) {
        return 0;
    }
    const char *why = job->reason != NULL && job->reason->text[0] != 0 ? job->reason->text
                                                                       : "no reason was given";
    const char *what = strcmp(job->state, "CANCELLED") == 0 ? "was cancelled" : "failed";
    return err_set(err, ERR_FAILED,
                   "job %" PRIu64 " (%s) %s: %s (dsctl job show %" PRIu64 " tells more)", job->id,
                   job->name, what, why, job->id);
}
