/* The curves, a small table under each, and the steps in figures. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/format.h"
#include "proto/pick.h"
#include "report/chart.h"
#include "report/parts.h"

#define STEPS_SHOWN   12
#define SPARK_COLUMNS 60

struct plan {
    const char *name, *title, *unit;
    enum metric metrics[CHART_SERIES];
    const char *names[CHART_SERIES];
    size_t count;
    bool from_zero;
    const char *limit, *limit_name; /* path of a number in the job file */
};
static const struct plan plans[] = {
    {.name = "loss",
     .title = "Loss",
     .unit = "nats a token",
     .metrics = {METRIC_LOSS, METRIC_MTP_LOSS, METRIC_VALID_LOSS},
     .names = {"training", "multi-token prediction", "validation"},
     .count = 3},
    {.name = "grad-norm",
     .title = "Gradient norm",
     .unit = "before clipping",
     .metrics = {METRIC_GRAD_NORM},
     .names = {"gradient norm"},
     .count = 1,
     .from_zero = true,
     .limit = "spec.train.optimizer.grad_clip",
     .limit_name = "clipped to"},
    {.name = "maxvio",
     .title = "Balance of the experts (MaxVio)",
     .unit = "load over the mean, less 1",
     .metrics = {METRIC_MAXVIO, METRIC_VALID_MAXVIO},
     .names = {"training batch", "validation set"},
     .count = 2,
     .from_zero = true},
    {.name = "lr",
     .title = "Learning rate",
     .unit = "",
     .metrics = {METRIC_LR},
     .names = {"learning rate"},
     .count = 1,
     .from_zero = true},
    {.name = "tokens-per-s",
     .title = "Throughput",
     .unit = "tokens a second",
     .metrics = {METRIC_TOKENS_PER_S},
     .names = {"tokens a second"},
     .count = 1,
     .from_zero = true},
};

/* ---- marks */

struct marks {
    struct chart_mark *items; /* owned, texts too */
    size_t count, capacity;
};

static void add_mark(struct marks *m, enum chart_mark_kind kind, uint64_t step, char *text)
{
    void *items = m->items;
    mem_grow(&items, &m->capacity, m->count + 1, sizeof *m->items);
    m->items = items;
    m->items[m->count++] = (struct chart_mark){kind, (double)step, text};
}

/* Where another attempt took over, and where the guard stepped in. */
static struct marks find_marks(const struct parts *p)
{
    struct marks m = {0};
    const struct metrics *all = p->metrics;
    for (size_t i = 1; i < all->count; i++) {
        const struct metrics_row *row = &all->rows[i];
        if (row->epoch != all->rows[i - 1].epoch) {
            add_mark(&m, CHART_RESTART, row->step,
                     mem_printf("attempt %" PRIu64 " from step %" PRIu64, row->epoch, row->step));
        }
    }
    const json_t *guard = pick(p->facts, "guard");
    for (size_t i = 0; i < json_array_size(guard); i++) {
        const json_t *d = json_array_get(guard, i);
        add_mark(&m, CHART_DECISION, pick_count(d, "step"),
                 mem_printf("step %" PRIu64 ": %s", pick_count(d, "step"), pick_text(d, "action")));
    }
    return m;
}

static void drop_marks(struct marks *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free((char *)m->items[i].text);
    }
    free(m->items);
}

/* ---- figures */

static void value_cell(struct parts *p, double value, enum metric which)
{
    if (isnan(value)) {
        parts_text_cell(p, "");
    } else if (!isfinite(value)) {
        parts_text_cell(p, "not finite");
    } else if (which == METRIC_TOKENS_PER_S) {
        format_count(doc_cell_buf(p->doc), value);
    } else if (which == METRIC_LR) {
        doc_cell(p->doc, "%.2e", value);
    } else {
        doc_cell(p->doc, fabs(value) < 1e6 ? "%.4f" : "%.4e", value);
    }
}

/* ---- a curve */

static void summarise(struct parts *p, const struct plan *plan)
{
    static const char *const columns[] = {"curve",           ">first",   ">last",    ">lowest",
                                          ">at step",        ">highest", ">at step", ">median",
                                          ">moving average", ">measured"};
    for (size_t s = 0; s < plan->count; s++) {
        const struct curve *c = &p->curves[plan->metrics[s]];
        if (c->count == 0) {
            continue;
        }
        doc_cell(p->doc, "%s", plan->names[s]);
        value_cell(p, c->first, plan->metrics[s]);
        value_cell(p, c->last, plan->metrics[s]);
        value_cell(p, c->low, plan->metrics[s]);
        doc_cell(p->doc, "%" PRIu64, c->low_step);
        value_cell(p, c->high, plan->metrics[s]);
        doc_cell(p->doc, "%" PRIu64, c->high_step);
        value_cell(p, c->median, plan->metrics[s]);
        value_cell(p, c->smooth ? c->last_line : NAN, plan->metrics[s]);
        doc_cell(p->doc, "%" PRIu64, c->measured);
    }
    doc_table(p->doc, columns, 10);
}

static void caption(struct buf *out, const struct curve *c)
{
    uint64_t drawn = c->measured - c->not_finite;
    if (c->count == 0 || !c->smooth) {
        return;
    }
    if (drawn > c->count) {
        buf_printf(out, "Shaded: lowest to highest of each %.0f steps. ",
                   ceil((double)(c->last_step - c->first_step + 1) / CURVE_POINTS));
    } else {
        buf_append_str(out, "Faint: each step. ");
    }
    buf_printf(out, "Line: moving average over %.0f steps.", c->window);
}

static void draw(struct parts *p, const struct plan *plan, const struct marks *marks)
{
    struct chart chart = {.title = plan->title,
                          .unit = plan->unit,
                          .count = plan->count,
                          .marks = marks->items,
                          .mark_count = marks->count,
                          .limit = NAN,
                          .from_zero = plan->from_zero};
    char limit_name[64];
    const json_t *limit = plan->limit != NULL ? pick(p->facts, plan->limit) : NULL;
    if (json_is_number(limit)) {
        chart.limit = json_number_value(limit);
        snprintf(limit_name, sizeof limit_name, "%s %g", plan->limit_name, chart.limit);
        chart.limit_name = limit_name;
    }
    for (size_t s = 0; s < plan->count; s++) {
        enum metric which = plan->metrics[s];
        bool points = which == METRIC_VALID_LOSS || which == METRIC_VALID_MAXVIO;
        chart.series[s] = (struct chart_series){&p->curves[which], plan->names[s], points};
    }
    struct buf svg = {0};
    struct buf text = {0};
    if (chart_svg(&svg, &chart, doc_wants_alone(p->doc))) {
        const struct curve *c = &p->curves[plan->metrics[0]];
        caption(&text, c);
        char *spark = curve_spark(c, SPARK_COLUMNS);
        const struct doc_figure figure = {plan->name, plan->title, buf_cstr(&text), spark};
        doc_figure(p->doc, &figure, &svg);
        summarise(p, plan);
        free(spark);
    }
    buf_fini(&text);
    buf_fini(&svg);
}

/* ---- MaxVio of each layer */

static void layers(struct parts *p)
{
    static const char *const columns[] = {">layer", ">MaxVio"};
    const struct metrics *m = p->metrics;
    if (m->layer_count == 0) {
        return;
    }
    doc_text(p->doc, "MaxVio of each layer with experts at step %" PRIu64 ":", m->layers_step);
    for (size_t i = 0; i < m->layer_count; i++) {
        doc_cell(p->doc, "%" PRIu64, m->layers[i].layer);
        doc_cell(p->doc, "%.4g", m->layers[i].maxvio);
    }
    doc_table(p->doc, columns, 2);
}

/* ---- in figures */

/* Evenly over the run, the first and the last among them; where it was validated, if it was. */
static bool is_shown(const struct metrics *m, size_t i, size_t *next, size_t of, size_t *seen,
                     bool validated)
{
    if (i + 1 == m->count) {
        return true;
    }
    if (validated && isnan(m->rows[i].value[METRIC_VALID_LOSS])) {
        return false;
    }
    size_t at = (*seen)++;
    if (at < *next * of / STEPS_SHOWN) {
        return false;
    }
    while (*next * of / STEPS_SHOWN <= at) {
        (*next)++;
    }
    return true;
}

static void in_figures(struct parts *p)
{
    static const struct {
        enum metric metric;
        const char *title;
    } shown[] = {{METRIC_LOSS, ">loss"},
                 {METRIC_MTP_LOSS, ">MTP loss"},
                 {METRIC_VALID_LOSS, ">validation loss"},
                 {METRIC_GRAD_NORM, ">gradient norm"},
                 {METRIC_MAXVIO, ">MaxVio"},
                 {METRIC_VALID_MAXVIO, ">validation MaxVio"},
                 {METRIC_LR, ">learning rate"},
                 {METRIC_TOKENS_PER_S, ">tokens/s"}};
    const struct metrics *m = p->metrics;
    const char *columns[2 + METRICS] = {">step", ">tokens"};
    size_t count = 2;
    for (size_t c = 0; c < sizeof shown / sizeof shown[0]; c++) {
        if (p->curves[shown[c].metric].measured > 0) {
            columns[count++] = shown[c].title;
        }
    }
    size_t validations = (size_t)p->curves[METRIC_VALID_LOSS].measured;
    bool validated = validations >= STEPS_SHOWN / 2;
    size_t of = validated ? validations : m->count;
    size_t next = 0;
    size_t seen = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (!is_shown(m, i, &next, of, &seen, validated)) {
            continue;
        }
        doc_cell(p->doc, "%" PRIu64, m->rows[i].step);
        format_count(doc_cell_buf(p->doc), (double)m->rows[i].tokens);
        for (size_t c = 0; c < sizeof shown / sizeof shown[0]; c++) {
            if (p->curves[shown[c].metric].measured > 0) {
                value_cell(p, m->rows[i].value[shown[c].metric], shown[c].metric);
            }
        }
    }
    doc_table(p->doc, columns, count);
}

void parts_curves(struct parts *p)
{
    doc_heading(p->doc, "Curves");
    if (p->metrics->count == 0) {
        doc_text(p->doc, "No step has been reported yet.");
        return;
    }
    struct marks marks = find_marks(p);
    if (marks.count > 0) {
        doc_text(p->doc, "Dotted lines: another attempt took over. Red: the guard stepped in.");
    }
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        draw(p, &plans[i], &marks);
        if (strcmp(plans[i].name, "maxvio") == 0) {
            layers(p);
        }
    }
    doc_heading(p->doc, "In figures");
    in_figures(p);
    drop_marks(&marks);
}
