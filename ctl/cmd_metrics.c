/* job metrics */
#include <inttypes.h>
#include <stdlib.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/metric_pages.h"
#include "ctl/plot.h"
#include "lib/mem.h"
#include "proto/pbjson.h"

#define TABLE_STEPS 20u
#define PLOT_ROWS   20u

static void lr_cell(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_printf(out, "%.2e", json_number_value(value));
}

static const struct column metric_columns[] = {
    {"STEP", "step", COLUMN_RIGHT, NULL, NULL},
    {"EPOCH", "epoch", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"TOKENS", "tokens", COLUMN_RIGHT, cell_count, NULL},
    {"LOSS", "loss", COLUMN_RIGHT, cell_loss, NULL},
    {"MTP-LOSS", "mtp_loss", COLUMN_RIGHT, cell_loss, NULL},
    {"VALID-LOSS", "valid_loss", COLUMN_RIGHT, cell_loss, NULL},
    {"GRAD-NORM", "grad_norm", COLUMN_RIGHT, cell_loss, NULL},
    {"LR", "lr", COLUMN_RIGHT, lr_cell, NULL},
    {"MAXVIO", "balance_maxvio", COLUMN_RIGHT, cell_loss, NULL},
    {"VALID-MAXVIO", "valid_maxvio", COLUMN_RIGHT | COLUMN_WIDE, cell_loss, NULL},
    {"MAXVIO-LAYERS", "layer_maxvio", COLUMN_WIDE, NULL, NULL},
    {"TOKENS/S", "tokens_per_s", COLUMN_RIGHT, cell_count, NULL},
    {"STEP-TIME", "step_ms", COLUMN_RIGHT, cell_duration, NULL},
};
static const struct listing metric_listing = LISTING(NULL, NULL, metric_columns);

/* ---- reading */

/* Moves *from on to where the newest `count` steps start: a run may have millions. */
static int skip_to_newest(struct ctl *ctl, uint64_t job, uint64_t count, uint64_t *from,
                          struct err *err)
{
    Ds__JobWait request = DS__JOB_WAIT__INIT;
    Ds__Job *reply = NULL;
    request.id = job;
    request.has_wait_ms = 1;
    TRY(session_call(&ctl->session, RPC_JOB_WAIT, &request, &reply, err));
    uint64_t step = reply->progress != NULL ? reply->progress->step : 0;
    rpc_free(&reply->base);
    *from = step > count && step - count + 1 > *from ? step - count + 1 : *from;
    return 0;
}

/* ---- the list */

static void take_items(const Ds__MetricList *page, void *items)
{
    json_t *object = pbjson_from(&page->base, NULL);
    json_array_extend(items, json_object_get(object, "items"));
    json_decref(object);
}

/* ---- the plot */

struct curve {
    double *step, *loss; /* owned */
    size_t count, capacity;
};
struct curves {
    struct curve training, validation;
};

static void curve_add(struct curve *c, double step, double loss)
{
    if (c->count == c->capacity) {
        c->capacity = c->capacity > 0 ? c->capacity * 2 : 1024;
        c->step = mem_resize(c->step, c->capacity * sizeof *c->step);
        c->loss = mem_resize(c->loss, c->capacity * sizeof *c->loss);
    }
    c->step[c->count] = step;
    c->loss[c->count++] = loss;
}

static void curve_fini(struct curve *c)
{
    free(c->step);
    free(c->loss);
}

static void take_points(const Ds__MetricList *page, void *arg)
{
    struct curves *c = arg;
    for (size_t i = 0; i < page->n_items; i++) {
        const Ds__Metric *m = page->items[i];
        curve_add(&c->training, (double)m->step, m->loss);
        if (m->has_valid_loss) {
            curve_add(&c->validation, (double)m->step, m->valid_loss);
        }
    }
}

static int draw(struct ctl *ctl, struct buf *out, uint64_t job, uint64_t from, struct err *err)
{
    const struct terminal *t = &ctl->output.terminal;
    struct curves c = {0};
    int rc = metric_pages_read(ctl, job, from, take_points, &c, err);
    const struct plot_series series[] = {
        {"training loss", c.training.step, c.training.loss, c.training.count, false, COLOUR_CYAN},
        {"validation loss", c.validation.step, c.validation.loss, c.validation.count, true,
         COLOUR_YELLOW},
    };
    const size_t rows = t->rows < PLOT_ROWS + 4 ? t->rows - 4 : PLOT_ROWS;
    const struct plot plot = {series, 2, "step", t->columns, rows};
    if (rc == 0 && !plot_draw(out, &plot, t)) {
        rc = err_set(err, ERR_NOT_FOUND,
                     "job %" PRIu64 " has reported no step yet: there is nothing to plot", job);
    }
    curve_fini(&c.training);
    curve_fini(&c.validation);
    return rc;
}

int cmd_job_metrics(struct ctl *ctl, struct buf *out, struct err *err)
{
    const struct output *o = &ctl->output;
    bool plot = args_has(&ctl->args, "plot");
    uint64_t job = 0, from = 0;
    TRY(args_id(ctl->args.words[0], "job", &job, err));
    TRY(args_u64(&ctl->args, "from", &from, err));
    if (plot && !output_for_people(o)) {
        return err_set(err, ERR_USAGE,
                       "--plot draws for people: leave out -o, or leave out --plot");
    }
    uint64_t newest = o->limited ? o->limit : output_for_people(o) && !plot ? TABLE_STEPS : 0;
    if (newest > 0) {
        TRY(skip_to_newest(ctl, job, newest, &from, err));
    }
    if (plot) {
        return draw(ctl, out, job, from, err);
    }
    json_t *items = json_array();
    int rc = metric_pages_read(ctl, job, from, take_items, items, err);
    if (rc != 0) {
        json_decref(items);
        return rc;
    }
    json_t *list = json_pack("{s:s, s:o}", "schema", "ds/metric-list/v1", "items", items);
    return output_list(o, out, list, &metric_listing, err);
}
