/* job metrics */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/pick.h"
#include "ctl/plot.h"
#include "lib/mem.h"

#define PAGE_STEPS  10000u
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
    {"MAXVIO", "balance_maxvio", COLUMN_RIGHT | COLUMN_WIDE, cell_loss, NULL},
    {"TOKENS/S", "tokens_per_s", COLUMN_RIGHT, cell_count, NULL},
    {"STEP-TIME", "step_ms", COLUMN_RIGHT, cell_duration, NULL},
};
static const struct listing metric_listing = LISTING(NULL, NULL, metric_columns);

/* The whole series, page by page, as one list. */
static int read_series(struct ctl *ctl, uint64_t job, uint64_t from, json_t **list, struct err *err)
{
    *list = NULL;
    for (;;) {
        Ds__MetricRead request = DS__METRIC_READ__INIT;
        Ds__MetricList *reply = NULL;
        request.job = job;
        request.has_from_step = request.has_limit = 1;
        request.from_step = from;
        request.limit = PAGE_STEPS;
        int rc = session_call(&ctl->session, RPC_JOB_METRICS, &request, &reply, err);
        if (rc != 0) {
            json_decref(*list);
            return rc;
        }
        size_t count = reply->n_items;
        uint64_t next = count > 0 ? reply->items[count - 1]->step + 1 : from;
        json_t *page = output_json(reply, "ds/metric-list/v1");
        if (*list == NULL) {
            *list = page;
        } else {
            json_array_extend(json_object_get(*list, "items"), json_object_get(page, "items"));
            json_decref(page);
        }
        if (next <= from) {
            return 0;
        }
        from = next;
    }
}

/* Keeps the newest; a cut at the end, as other lists have it, would show the beginning for ever. */
static void keep_newest(json_t *items, uint64_t count)
{
    size_t size = json_array_size(items);
    for (size_t drop = size > count ? size - (size_t)count : 0; drop > 0; drop--) {
        json_array_remove(items, 0);
    }
}

static double number_at(const json_t *item, const char *key)
{
    const json_t *value = pick(item, key);
    return value != NULL ? json_number_value(value) : NAN;
}

/* The validation points alone, and how many. */
static size_t only_finite(const double *x, const double *y, size_t count, double *px, double *py)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(y[i])) {
            px[kept] = x[i];
            py[kept++] = y[i];
        }
    }
    return kept;
}

static int draw(const struct ctl *ctl, struct buf *out, uint64_t job, const json_t *items,
                struct err *err)
{
    const struct terminal *t = &ctl->output.terminal;
    size_t count = json_array_size(items);
    double *numbers = mem_alloc_array(count * 5, sizeof *numbers);
    double *step = numbers, *loss = numbers + count, *valid = numbers + 2 * count;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(items, i);
        step[i] = number_at(item, "step");
        loss[i] = number_at(item, "loss");
        valid[i] = number_at(item, "valid_loss");
    }
    double *valid_step = numbers + 3 * count, *valid_loss = numbers + 4 * count;
    size_t valid_count = only_finite(step, valid, count, valid_step, valid_loss);
    const struct plot_series series[] = {
        {"training loss", step, loss, count, false, COLOUR_CYAN},
        {"validation loss", valid_step, valid_loss, valid_count, true, COLOUR_YELLOW},
    };
    const size_t rows = t->rows < PLOT_ROWS + 4 ? t->rows - 4 : PLOT_ROWS;
    const struct plot plot = {series, 2, "step", t->columns, rows};
    bool drawn = plot_draw(out, &plot, t);
    free(numbers);
    return drawn
               ? 0
               : err_set(err, ERR_NOT_FOUND,
                         "job %" PRIu64 " has reported no step yet: there is nothing to plot", job);
}

int cmd_job_metrics(struct ctl *ctl, struct buf *out, struct err *err)
{
    const struct output *o = &ctl->output;
    bool table = o->format == OUTPUT_TABLE || o->format == OUTPUT_WIDE;
    bool plot = args_has(&ctl->args, "plot");
    uint64_t job = 0, from = 0;
    json_t *list = NULL;
    TRY(args_id(ctl->args.words[0], "job", &job, err));
    TRY(args_u64(&ctl->args, "from", &from, err));
    if (plot && !table) {
        return err_set(err, ERR_USAGE,
                       "--plot draws for people: leave out -o, or leave out --plot");
    }
    TRY(read_series(ctl, job, from, &list, err));
    json_t *items = json_object_get(list, "items");
    if (o->limit > 0) {
        keep_newest(items, o->limit);
    } else if (table && !plot && !o->limited) {
        keep_newest(items, TABLE_STEPS);
    }
    if (plot) {
        int rc = draw(ctl, out, job, items, err);
        json_decref(list);
        return rc;
    }
    return output_list(o, out, list, &metric_listing, err);
}
