/* How the run went: attempts, what the guard decided, checkpoints, events. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/format.h"
#include "proto/pick.h"
#include "report/chart.h"
#include "report/parts.h"

#define NODES_SHOWN 8

/* ---- attempts along the time */

static bool clocks(const struct parts *p, int64_t *from, int64_t *to)
{
    return pick_time(p->facts, "started_at", from) &&
           (pick_time(p->facts, "ended_at", to) || pick_time(p->facts, "made_at", to)) &&
           *to > *from;
}

/* One that was killed has no end: it is where the next one began. */
static int64_t end_of(const json_t *attempts, size_t i, int64_t to)
{
    int64_t end = to;
    if (!pick_time(json_array_get(attempts, i), "ended_at", &end)) {
        pick_time(json_array_get(attempts, i + 1), "started_at", &end);
    }
    return end < to ? end : to;
}

static size_t make_spans(const json_t *attempts, int64_t from, int64_t to, struct chart_span *spans)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        const json_t *a = json_array_get(attempts, i);
        const char *cause = pick_text(a, "cause");
        int64_t start = 0;
        int64_t end = end_of(attempts, i, to);
        if (!pick_time(a, "started_at", &start) || start < from || end < start) {
            continue;
        }
        bool lost = pick_count(a, "lost_steps") > 0;
        spans[count] =
            (struct chart_span){(double)(start - from), (double)(end - from),
                                mem_printf("attempt %" PRIu64 "%s%s", pick_count(a, "attempt"),
                                           cause[0] != 0 ? ": " : "", cause),
                                lost ? 2 : (int)(count % 2)};
        count++;
    }
    return count;
}

static void draw_time(struct parts *p, const json_t *attempts)
{
    int64_t from = 0, to = 0;
    const json_t *ckpts = pick(p->facts, "checkpoints");
    if (!clocks(p, &from, &to)) {
        return;
    }
    struct chart_span *spans = mem_alloc_array(json_array_size(attempts) + 1, sizeof *spans);
    double *points = mem_alloc_array(json_array_size(ckpts) + 1, sizeof *points);
    size_t point_count = 0;
    for (size_t i = 0; i < json_array_size(ckpts); i++) {
        int64_t at = 0;
        if (pick_time(json_array_get(ckpts, i), "committed_at", &at) && at >= from && at <= to) {
            points[point_count++] = (double)(at - from);
        }
    }
    size_t count = make_spans(attempts, from, to, spans);
    struct buf svg = {0};
    if (count > 0) {
        const struct doc_figure figure = {
            "time", "Attempts along the time",
            "Red: steps were lost with it. Ticks below: checkpoints that are kept.", ""};
        chart_spans_svg(&svg, figure.title, (double)(to - from), spans, count, points, point_count,
                        doc_wants_alone(p->doc));
        doc_figure(p->doc, &figure, &svg);
    }
    for (size_t i = 0; i < count; i++) {
        free((char *)spans[i].text);
    }
    buf_fini(&svg);
    free(spans);
    free(points);
}

/* ---- as a table */

static void nodes_cell(struct parts *p, const json_t *nodes)
{
    struct buf *cell = doc_cell_buf(p->doc);
    size_t count = json_array_size(nodes);
    for (size_t i = 0; i < count && i < NODES_SHOWN; i++) {
        const char *node = json_string_value(json_array_get(nodes, i));
        buf_printf(cell, "%s%s", i > 0 ? ", " : "", node != NULL ? node : "?");
    }
    if (count > NODES_SHOWN) {
        buf_printf(cell, " and %zu more", count - NODES_SHOWN);
    }
    if (count == 0) {
        buf_append_str(cell, "-");
    }
}

static void attempts_table(struct parts *p, const json_t *attempts)
{
    static const char *const columns[] = {
        ">attempt", "where",       "started (UTC)",  "ended (UTC)",   ">from step",
        ">to step", ">lost steps", ">noticed after", ">restart took", "how it ended"};
    size_t first = parts_newest(p, attempts, "attempts");
    for (size_t i = first; i < json_array_size(attempts); i++) {
        const json_t *a = json_array_get(attempts, i);
        parts_count_cell(p, a, "attempt");
        nodes_cell(p, pick(a, "nodes"));
        parts_time_cell(p, a, "started_at");
        parts_time_cell(p, a, "ended_at");
        parts_count_cell(p, a, "first_step");
        parts_count_cell(p, a, "last_step");
        parts_count_cell(p, a, "lost_steps");
        parts_duration_cell(p, a, "detect_ms");
        parts_duration_cell(p, a, "restart_ms");
        parts_text_cell(p, pick_text(a, "cause"));
    }
    doc_table(p->doc, columns, 10);
}

/* ---- the guard */

static void number_cell(struct parts *p, const json_t *v)
{
    if (json_is_number(v)) {
        doc_cell(p->doc, "%.5g", json_number_value(v));
    } else {
        parts_text_cell(p, json_is_string(v) ? json_string_value(v) : "");
    }
}

/* A coordinator has of a decision what the guard said, a run's own folder has the numbers too. */
static bool has_numbers(const json_t *guard)
{
    return pick(json_array_get(guard, 0), "trigger") != NULL;
}

static void guard_table(struct parts *p)
{
    static const char *const all[] = {">attempt", ">step",          "trigger", ">loss",
                                      ">limit",   ">gradient norm", "decided", "in words"};
    static const char *const said[] = {">attempt", ">last step", "decided", "in words"};
    const json_t *guard = pick(p->facts, "guard");
    if (json_array_size(guard) == 0) {
        return;
    }
    bool numbers = has_numbers(guard);
    doc_heading(p->doc, "Decisions of the guard");
    for (size_t i = parts_newest(p, guard, "decisions"); i < json_array_size(guard); i++) {
        const json_t *d = json_array_get(guard, i);
        parts_count_cell(p, d, "epoch");
        parts_count_cell(p, d, "step");
        if (numbers) {
            parts_text_cell(p, pick_text(d, "trigger"));
            number_cell(p, pick(d, "loss"));
            number_cell(p, pick(d, "limit"));
            number_cell(p, pick(d, "grad_norm"));
        }
        parts_text_cell(p, pick_text(d, "action"));
        parts_text_cell(p, pick_text(d, "text"));
    }
    doc_table(p->doc, numbers ? all : said, numbers ? 8 : 4);
}

void parts_attempts(struct parts *p)
{
    const json_t *attempts = pick(p->facts, "attempts");
    if (json_array_size(attempts) > 0) {
        uint64_t lost = p->metrics->lost_steps;
        doc_heading(p->doc, "Attempts and restarts");
        doc_text(p->doc, "%zu attempt%s, %" PRIu64 " restart%s.", json_array_size(attempts),
                 json_array_size(attempts) == 1 ? "" : "s", pick_count(p->facts, "restarts"),
                 pick_count(p->facts, "restarts") == 1 ? "" : "s");
        if (lost > 0) {
            struct buf took = {0};
            format_duration(&took, p->metrics->lost_ms < 9e18 ? (int64_t)p->metrics->lost_ms : 0);
            doc_text(p->doc, "%" PRIu64 " step%s were done again or given up; they had taken %s.",
                     lost, lost == 1 ? "" : "s", buf_cstr(&took));
            buf_fini(&took);
        }
        draw_time(p, attempts);
        attempts_table(p, attempts);
    }
    guard_table(p);
}

/* ---- checkpoints */

void parts_checkpoints(struct parts *p)
{
    static const char *const columns[] = {">step",   ">attempt",        "state", ">size",
                                          ">shards", "committed (UTC)", "where"};
    const json_t *ckpts = pick(p->facts, "checkpoints");
    if (json_array_size(ckpts) == 0) {
        return;
    }
    doc_heading(p->doc, "Checkpoints");
    for (size_t i = parts_newest(p, ckpts, "checkpoints"); i < json_array_size(ckpts); i++) {
        const json_t *c = json_array_get(ckpts, i);
        const char *reason = pick_text(c, "reason");
        parts_count_cell(p, c, "step");
        parts_count_cell(p, c, "epoch");
        doc_cell(p->doc, "%s%s%s%s", pick_text(c, "state"),
                 json_is_true(pick(c, "pinned")) ? ", pinned" : "", reason[0] != 0 ? ": " : "",
                 reason);
        format_bytes(doc_cell_buf(p->doc), pick_count(c, "bytes"));
        parts_count_cell(p, c, "shards");
        parts_time_cell(p, c, "committed_at");
        parts_text_cell(p, pick_text(c, "path"));
    }
    doc_table(p->doc, columns, 7);
}

/* ---- events */

void parts_events(struct parts *p)
{
    static const char *const columns[] = {"time (UTC)", "event", ">attempt", "node", "what"};
    const json_t *events = pick(p->facts, "events");
    if (json_array_size(events) == 0) {
        return;
    }
    doc_heading(p->doc, "Timeline");
    for (size_t i = parts_newest(p, events, "events"); i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i);
        parts_time_cell(p, e, "at");
        parts_text_cell(p, pick_text(e, "kind"));
        parts_count_cell(p, e, "epoch");
        parts_text_cell(p, pick_text(e, "node"));
        parts_text_cell(p, pick_text(e, "text"));
    }
    doc_table(p->doc, columns, 5);
}
