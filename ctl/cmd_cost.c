/* cost report, verify */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/text.h"
#include "ctl/when.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/format.h"
#include "proto/pick.h"

static json_t *goodput_of(const json_t *item)
{
    uint64_t whole = pick_count(item, "gpu_ms");
    return whole == 0 ? json_null()
                      : json_real((double)pick_count(item, "productive_gpu_ms") / (double)whole);
}

static void share_cell(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_printf(out, "%.1f%%", 100 * json_number_value(value));
}

#define HOURS(title, key)                                                                          \
    {                                                                                              \
        title, key, COLUMN_RIGHT, cell_gpu_hours, NULL                                             \
    }
/* The first title is replaced by what a line stands for. */
static const struct column cost_columns[] = {
    {"KEY", "key", 0, NULL, NULL},
    HOURS("GPU-HOURS", "gpu_ms"),
    {"PRODUCTIVE", "productive_gpu_ms", COLUMN_RIGHT | COLUMN_SPARE, cell_gpu_hours, NULL},
    {"GOODPUT", "goodput", COLUMN_RIGHT, share_cell, goodput_of},
    HOURS("INIT", "badput.init"),
    HOURS("DATA", "badput.data_wait"),
    HOURS("CKPT", "badput.checkpoint_stall"),
    HOURS("LOST", "badput.lost_progress"),
    HOURS("RECOVERY", "badput.recovery"),
    HOURS("HELD", "badput.held"),
    {"COST", "cost_micro_usd", COLUMN_RIGHT, cell_usd, NULL},
};
#define COST_COLUMNS (sizeof cost_columns / sizeof cost_columns[0])

/* ---- the capacity identity */

static const char *const capacity_parts[] = {"allocated", "down", "planned_down", "idle"};

/* parts - reported, in GPU-ms. */
static int64_t capacity_gap(const json_t *capacity)
{
    int64_t gap = -pick_int(capacity, "reported");
    for (size_t i = 0; i < 4; i++) {
        gap += pick_int(capacity, capacity_parts[i]);
    }
    return gap;
}

static void append_capacity(const struct output *o, struct buf *out, const json_t *capacity)
{
    int64_t gap = capacity_gap(capacity);
    for (size_t i = 0; i < 4; i++) {
        buf_printf(out, "%s%s ", i > 0 ? " + " : "", capacity_parts[i]);
        format_gpu_hours(out, pick_count(capacity, capacity_parts[i]));
    }
    buf_append_str(out, gap == 0 ? " = reported " : " is not reported ");
    format_gpu_hours(out, pick_count(capacity, "reported"));
    buf_append_str(out, ": ");
    if (gap == 0) {
        terminal_paint(&o->terminal, out, COLOUR_GREEN, "ok");
        buf_append_str(out, "\n");
    } else {
        terminal_paint(&o->terminal, out, COLOUR_RED, "off");
        buf_printf(out, " by %+" PRId64 " GPU-ms\n", gap);
    }
}

/* ---- report */

static int ask_times(const struct args *a, Ds__CostReportRequest *request, struct err *err)
{
    const char *from = args_get(a, "from");
    const char *to = args_get(a, "to");
    int64_t now_ms = clock_wall_ms();
    if (from != NULL) {
        request->has_from_ms = 1;
        TRY(when_parse(from, now_ms, &request->from_ms, err));
    }
    if (to != NULL) {
        request->has_to_ms = 1;
        TRY(when_parse(to, now_ms, &request->to_ms, err));
    }
    if (from != NULL && request->from_ms >= (to != NULL ? request->to_ms : now_ms)) {
        return err_set(err, ERR_USAGE, "--from %s is not before --to %s", from,
                       to != NULL ? to : "now");
    }
    return 0;
}

/* By category, what a line is made of is the line itself. */
static void append_table(const struct output *o, struct buf *out, const json_t *cost,
                         const char *by)
{
    bool by_category = strcmp(by, "category") == 0;
    const struct table_view view = {&o->terminal, o->format == OUTPUT_WIDE, o->no_header};
    struct column columns[COST_COLUMNS];
    size_t count = 0;
    char title[32];
    snprintf(title, sizeof title, "%s", by);
    text_upper(title);
    for (size_t i = 0; i < COST_COLUMNS; i++) {
        if (!by_category || i == 0 || i == 1 || i + 1 == COST_COLUMNS) {
            columns[count++] = cost_columns[i];
        }
    }
    columns[0].title = title;
    json_t *rows = json_copy(json_object_get(cost, "items"));
    json_array_append(rows, json_object_get(cost, "total"));
    table_text(out, rows, columns, count, &view);
    json_decref(rows);
    append_capacity(o, out, json_object_get(cost, "capacity"));
}

int cmd_cost_report(struct ctl *ctl, struct buf *out, struct err *err)
{
    static const struct listing listing = LISTING(NULL, NULL, cost_columns);
    const struct output *o = &ctl->output;
    const char *by = args_get(&ctl->args, "by");
    Ds__CostReportRequest request = DS__COST_REPORT_REQUEST__INIT;
    Ds__Cost *reply = NULL;
    char lower[32];
    snprintf(lower, sizeof lower, "%s", by != NULL ? by : "job");
    text_lower(lower);
    request.by = lower;
    TRY(ask_times(&ctl->args, &request, err));
    TRY(session_call(&ctl->session, RPC_COST_REPORT, &request, &reply, err));
    json_t *cost = output_json(reply, "ds/cost/v1");
    if (o->format != OUTPUT_TABLE && o->format != OUTPUT_WIDE) {
        return output_list(o, out, cost, &listing, err);
    }
    int rc = output_arrange(o, json_object_get(cost, "items"), &listing, err);
    if (rc == 0) {
        append_table(o, out, cost, lower);
    }
    json_decref(cost);
    return rc;
}

/* ---- verify */

static void verify_page(const struct output *o, struct buf *out, const json_t *verify)
{
    const json_t *problems = json_object_get(verify, "problem");
    bool ok = json_is_true(pick(verify, "ok"));
    buf_printf(out, "ledger: %" PRIu64 " row%s, hash chain ", pick_count(verify, "rows"),
               pick_count(verify, "rows") == 1 ? "" : "s");
    text_append_clean(out, pick_text(verify, "head"));
    buf_append_str(out, ": ");
    terminal_paint(&o->terminal, out, ok ? COLOUR_GREEN : COLOUR_RED, ok ? "ok" : "broken");
    buf_append_str(out, "\n");
    buf_append_str(out, "GPU-hours: ");
    append_capacity(o, out, json_object_get(verify, "capacity"));
    for (size_t i = 0; i < json_array_size(problems); i++) {
        buf_append_str(out, "problem: ");
        text_append_clean(out, json_string_value(json_array_get(problems, i)));
        buf_append_str(out, "\n");
    }
}

int cmd_cost_verify(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__CostVerify *reply = NULL;
    TRY(session_call(&ctl->session, RPC_COST_VERIFY, &request, &reply, err));
    json_t *verify = output_json(reply, "ds/cost-verify/v1");
    bool ok =
        json_is_true(pick(verify, "ok")) && capacity_gap(json_object_get(verify, "capacity")) == 0;
    struct err verdict = {0};
    if (!ok) {
        const char *first =
            json_string_value(json_array_get(json_object_get(verify, "problem"), 0));
        err_set(&verdict, ERR_FAILED, "the ledger does not verify: %s (compare with a backup)",
                first != NULL ? first : "the capacity identity is off");
    }
    TRY(output_one(&ctl->output, out, verify, NULL, verify_page, err));
    if (!ok) {
        *err = verdict;
    }
    return verdict.code;
}
