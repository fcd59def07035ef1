#include "report/run_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "lib/version.h"
#include "proto/format.h"
#include "proto/pick.h"
#include "report/parts.h"

/* ---- what the sections share */

bool parts_has_gpus(const struct parts *p)
{
    return strcmp(pick_text(p->facts, "origin"), "folder") != 0;
}

void parts_text_cell(struct parts *p, const char *text)
{
    doc_cell(p->doc, "%s", text[0] != 0 ? text : "-");
}

/* UTC, to the second: a report is read elsewhere than it was written. */
static bool utc(const json_t *object, const char *key, char text[CLOCK_TEXT_BYTES])
{
    int64_t ms = 0;
    if (!pick_time(object, key, &ms)) {
        return false;
    }
    clock_format_utc(ms, text);
    text[10] = ' ';
    text[19] = 0;
    return true;
}

void parts_time_cell(struct parts *p, const json_t *object, const char *key)
{
    char text[CLOCK_TEXT_BYTES];
    parts_text_cell(p, utc(object, key, text) ? text : "");
}

void parts_duration_cell(struct parts *p, const json_t *object, const char *key)
{
    struct buf *cell = doc_cell_buf(p->doc);
    if (pick(object, key) == NULL) {
        buf_append_str(cell, "-");
    } else {
        format_duration(cell, pick_int(object, key));
    }
}

void parts_count_cell(struct parts *p, const json_t *object, const char *key)
{
    if (pick(object, key) == NULL) {
        parts_text_cell(p, "");
    } else {
        doc_cell(p->doc, "%" PRIu64, pick_count(object, key));
    }
}

size_t parts_newest(struct parts *p, const json_t *list, const char *what)
{
    size_t count = json_array_size(list);
    if (count <= PARTS_ROWS) {
        return 0;
    }
    doc_text(p->doc, "The newest %d of %zu %s.", PARTS_ROWS, count, what);
    return count - PARTS_ROWS;
}

/* ---- the head */

static const char *look_of(const char *state)
{
    static const struct {
        const char *state, *look;
    } looks[] = {{"COMPLETED", "good"}, {"FAILED", "bad"},    {"CANCELLED", "bad"}, {"HELD", "bad"},
                 {"RUNNING", "live"},   {"STARTING", "live"}, {"STOPPING", "live"}};
    for (size_t i = 0; i < sizeof looks / sizeof looks[0]; i++) {
        if (strcmp(looks[i].state, state) == 0) {
            return looks[i].look;
        }
    }
    return "";
}

static uint64_t newest_step(const struct parts *p)
{
    const struct metrics *m = p->metrics;
    uint64_t step = pick_count(p->facts, "progress.step");
    return m->count > 0 ? m->rows[m->count - 1].step : step;
}

static uint64_t newest_tokens(const struct parts *p)
{
    const struct metrics *m = p->metrics;
    uint64_t tokens = pick_count(p->facts, "progress.tokens");
    return m->count > 0 ? m->rows[m->count - 1].tokens : tokens;
}

static void introduce(struct parts *p)
{
    const json_t *f = p->facts;
    struct buf line = {0};
    char text[CLOCK_TEXT_BYTES];
    const struct {
        const char *name, *key;
    } who[] = {{"user", "user"}, {"account", "account"}, {"queue", "queue"}, {"stage", "stage"}};
    if (pick(f, "id") != NULL) {
        buf_printf(&line, "Job %" PRIu64, pick_count(f, "id"));
    } else {
        buf_append_str(&line, "A run of dstrain");
    }
    for (size_t i = 0; i < sizeof who / sizeof who[0]; i++) {
        if (pick_text(f, who[i].key)[0] != 0) {
            buf_printf(&line, ", %s %s", who[i].name, pick_text(f, who[i].key));
        }
    }
    if (utc(f, "started_at", text)) {
        buf_printf(&line, ", started %s UTC", text);
    }
    if (utc(f, "ended_at", text)) {
        buf_printf(&line, ", ended %s UTC", text);
    }
    doc_text(p->doc, "%s.", buf_cstr(&line));
    buf_fini(&line);
}

/* What a reader has to know before anything else. */
static void warn(struct parts *p)
{
    const struct metrics *m = p->metrics;
    const char *state = pick_text(p->facts, "state");
    const char *reason = pick_text(p->facts, "reason.text");
    if (reason[0] != 0) {
        doc_warn(p->doc, "%s: %s", state, reason);
    }
    for (size_t i = 0; i < METRICS; i++) {
        const struct curve *c = &p->curves[i];
        if (c->not_finite > 0) {
            doc_warn(p->doc, "%s was not finite at %" PRIu64 " step%s, first at step %" PRIu64 ".",
                     metric_keys[i], c->not_finite, c->not_finite == 1 ? "" : "s",
                     c->not_finite_step);
        }
    }
    if (m->broken_lines > 0) {
        doc_warn(p->doc, "%" PRIu64 " line%s of the measures could not be read and %s left out.",
                 m->broken_lines, m->broken_lines == 1 ? "" : "s",
                 m->broken_lines == 1 ? "is" : "are");
    }
    const json_t *guard = pick(p->facts, "guard");
    if (json_array_size(guard) > 0) {
        doc_warn(p->doc, "The guard stepped in %zu time%s; see below.", json_array_size(guard),
                 json_array_size(guard) == 1 ? "" : "s");
    }
}

/* ---- key figures */

static void tile_progress(struct parts *p)
{
    uint64_t step = newest_step(p);
    uint64_t steps = pick_count(p->facts, "progress.steps");
    steps = steps > 0 ? steps : pick_count(p->facts, "spec.train.steps");
    if (step == 0 && steps == 0) {
        return;
    }
    doc_cell(p->doc, "Steps");
    doc_cell(p->doc, "%" PRIu64, step);
    struct buf *cell = doc_cell_buf(p->doc);
    if (steps > 0) {
        buf_printf(cell, "of %" PRIu64 ", ", steps);
        format_percent(cell, step, steps);
    }
    doc_cell(p->doc, "Tokens");
    format_count(doc_cell_buf(p->doc), (double)newest_tokens(p));
    cell = doc_cell_buf(p->doc);
    uint64_t goal = pick_count(p->facts, "spec.train.tokens");
    if (goal > 0) {
        buf_append_str(cell, "of ");
        format_count(cell, (double)goal);
    }
}

static void tile_curve(struct parts *p, const char *name, enum metric which)
{
    const struct curve *c = &p->curves[which];
    if (c->count == 0) {
        return;
    }
    doc_cell(p->doc, "%s", name);
    doc_cell(p->doc, "%.4f", c->smooth ? c->last_line : c->last);
    doc_cell(p->doc, "%slowest %.4f at step %" PRIu64, c->smooth ? "moving average; " : "", c->low,
             c->low_step);
}

static void tile_speed(struct parts *p)
{
    const struct curve *c = &p->curves[METRIC_TOKENS_PER_S];
    if (c->count == 0) {
        return;
    }
    doc_cell(p->doc, "Tokens a second");
    format_count(doc_cell_buf(p->doc), c->median);
    struct buf *cell = doc_cell_buf(p->doc);
    buf_append_str(cell, "median; last ");
    format_count(cell, c->last);
}

static void tile_time(struct parts *p)
{
    int64_t from = 0, to = 0;
    bool ended = pick_time(p->facts, "ended_at", &to);
    if (!pick_time(p->facts, "started_at", &from) ||
        (!ended && !pick_time(p->facts, "made_at", &to))) {
        return;
    }
    doc_cell(p->doc, "Time");
    format_duration(doc_cell_buf(p->doc), to - from);
    doc_cell(p->doc, "%s", ended ? "from start to end" : "since the start");
}

static void tile_restarts(struct parts *p)
{
    if (pick(p->facts, "restarts") == NULL) {
        return;
    }
    uint64_t lost = p->metrics->lost_steps;
    const json_t *attempts = pick(p->facts, "attempts");
    uint64_t counted = 0;
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        counted += pick_count(json_array_get(attempts, i), "lost_steps");
    }
    lost = counted > lost ? counted : lost;
    doc_cell(p->doc, "Restarts");
    doc_cell(p->doc, "%" PRIu64, pick_count(p->facts, "restarts"));
    doc_cell(p->doc, "%" PRIu64 " step%s lost", lost, lost == 1 ? "" : "s");
}

static void tile_cost(struct parts *p)
{
    uint64_t gpu_ms = pick_count(p->facts, "usage.gpu_ms");
    const char *unit = parts_has_gpus(p) ? "GPU-hours" : "rank-hours";
    if (gpu_ms == 0) {
        return;
    }
    doc_cell(p->doc, "Goodput");
    format_percent(doc_cell_buf(p->doc), pick_count(p->facts, "usage.productive_gpu_ms"), gpu_ms);
    struct buf *cell = doc_cell_buf(p->doc);
    buf_append_str(cell, "of ");
    format_gpu_hours(cell, gpu_ms);
    buf_printf(cell, " %s", unit);
    if (pick(p->facts, "usage.cost_micro_usd") != NULL) {
        int64_t cost = pick_int(p->facts, "usage.cost_micro_usd");
        uint64_t tokens = newest_tokens(p);
        doc_cell(p->doc, "Cost");
        format_usd(doc_cell_buf(p->doc), cost);
        cell = doc_cell_buf(p->doc);
        double per_million = tokens > 0 ? (double)cost / (double)tokens * 1e6 : INFINITY;
        if (fabs(per_million) < 1e18) {
            format_usd(cell, (int64_t)per_million);
            buf_append_str(cell, " a million tokens");
        }
    }
}

static void key_figures(struct parts *p)
{
    tile_progress(p);
    tile_curve(p, "Loss", METRIC_LOSS);
    tile_curve(p, "Validation loss", METRIC_VALID_LOSS);
    tile_curve(p, "MaxVio", METRIC_MAXVIO);
    tile_speed(p);
    tile_time(p);
    tile_restarts(p);
    tile_cost(p);
    doc_tiles(p->doc);
}

/* ---- the whole */

static void make_curves(struct parts *p)
{
    static const bool smooth[METRICS] = {
        [METRIC_LOSS] = true,   [METRIC_MTP_LOSS] = true,     [METRIC_GRAD_NORM] = true,
        [METRIC_MAXVIO] = true, [METRIC_TOKENS_PER_S] = true,
    };
    static const bool sparse[METRICS] = {[METRIC_VALID_LOSS] = true, [METRIC_VALID_MAXVIO] = true};
    for (size_t i = 0; i < METRICS; i++) {
        curve_make(&p->curves[i], p->metrics, (enum metric)i, smooth[i], sparse[i]);
    }
}

static void drop_curves(struct parts *p)
{
    for (size_t i = 0; i < METRICS; i++) {
        curve_fini(&p->curves[i]);
    }
}

void run_report_write(struct doc *d, const json_t *facts, const struct metrics *metrics)
{
    struct parts p = {.doc = d, .facts = facts, .metrics = metrics};
    const char *name = pick_text(facts, "name");
    const char *state = pick_text(facts, "state");
    char made[CLOCK_TEXT_BYTES] = "";
    make_curves(&p);
    doc_begin(d, name[0] != 0 ? name : "run", state, look_of(state));
    introduce(&p);
    warn(&p);
    key_figures(&p);
    parts_curves(&p);
    parts_attempts(&p);
    parts_checkpoints(&p);
    parts_data(&p);
    parts_cost(&p);
    parts_setup(&p);
    parts_events(&p);
    utc(facts, "made_at", made);
    char *last = mem_printf("Written %s%sby version %s.%s", made, made[0] != 0 ? " UTC " : "",
                            DS_VERSION, look_of(state)[0] == 'l' ? " The run goes on." : "");
    doc_end(d, last);
    free(last);
    drop_curves(&p);
}

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *run_report_json(const json_t *facts, const struct metrics *metrics)
{
    struct parts p = {.facts = facts, .metrics = metrics};
    json_t *curves = json_object();
    make_curves(&p);
    for (size_t i = 0; i < METRICS; i++) {
        const struct curve *c = &p.curves[i];
        if (c->measured > 0) {
            json_object_set_new(
                curves, metric_keys[i],
                json_pack("{s:I,s:I,s:o,s:o,s:o,s:I,s:o,s:I,s:o,s:o,s:o}", "measured",
                          (json_int_t)c->measured, "not_finite", (json_int_t)c->not_finite, "first",
                          real(c->first), "last", real(c->last), "lowest", real(c->low),
                          "lowest_step", (json_int_t)c->low_step, "highest", real(c->high),
                          "highest_step", (json_int_t)c->high_step, "mean", real(c->mean), "median",
                          real(c->median), "moving_average", real(c->last_line)));
        }
    }
    drop_curves(&p);
    json_t *whole = json_copy((json_t *)facts);
    json_object_set_new(whole, "curves", curves);
    json_object_set_new(whole, "lost_steps", json_integer((json_int_t)metrics->lost_steps));
    return whole;
}

/* ---- files */

static int save_plots(const struct doc *d, const char *folder, struct err *err)
{
    int rc = d->plot_count > 0 ? file_mkdirs(folder, 0777, err) : 0;
    for (size_t i = 0; rc == 0 && i < d->plot_count; i++) {
        char *path = mem_printf("%s/%s", folder, d->plots[i].name);
        rc = file_write_durable(path, d->plots[i].svg.data, d->plots[i].svg.len, 0666, err);
        free(path);
    }
    return rc;
}

int run_report_save(const char *path, enum doc_format format, const json_t *facts,
                    const struct metrics *metrics, struct err *err)
{
    struct doc d;
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t stem = dot != NULL && dot > name ? (size_t)(dot - path) : strlen(path);
    char *plots = mem_printf("%.*s-plots", (int)stem, path);
    doc_init(&d, format, format == DOC_HTML ? NULL : plots + (name - path));
    run_report_write(&d, facts, metrics);
    int rc = save_plots(&d, plots, err);
    rc = rc == 0 ? file_write_durable(path, d.out.data, d.out.len, 0666, err) : rc;
    doc_fini(&d);
    free(plots);
    return rc;
}

int run_report_save_both(const char *folder, const json_t *facts, const struct metrics *metrics,
                         struct err *err)
{
    char *markdown = mem_printf("%s/report.md", folder);
    char *html = mem_printf("%s/report.html", folder);
    int rc = run_report_save(markdown, DOC_MARKDOWN, facts, metrics, err);
    rc = rc == 0 ? run_report_save(html, DOC_HTML, facts, metrics, err) : rc;
    free(markdown);
    free(html);
    return rc;
}
