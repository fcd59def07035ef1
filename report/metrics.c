#include "report/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "report/lines.h"

const char *const metric_keys[METRICS] = {
    [METRIC_LOSS] = "loss",
    [METRIC_MTP_LOSS] = "mtp_loss",
    [METRIC_VALID_LOSS] = "valid_loss",
    [METRIC_GRAD_NORM] = "grad_norm",
    [METRIC_MAXVIO] = "balance_maxvio",
    [METRIC_VALID_MAXVIO] = "valid_maxvio",
    [METRIC_LR] = "lr",
    [METRIC_TOKENS_PER_S] = "tokens_per_s",
    [METRIC_STEP_MS] = "step_ms",
};

void metrics_fini(struct metrics *m)
{
    free(m->rows);
    free(m->layers);
    free(m->epochs);
    *m = (struct metrics){0};
}

/* ---- one step */

/* JSON has no NaN: "nan", "inf" and "-inf" stand for what was measured and is not finite. */
static double value_of(const json_t *v)
{
    const char *text = json_string_value(v);
    if (text != NULL) {
        return isfinite(strtod(text, NULL)) ? NAN : INFINITY;
    }
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static bool count_of(const json_t *object, const char *key, uint64_t *count)
{
    const json_t *v = json_object_get(object, key);
    *count = json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
    return v == NULL || (json_is_integer(v) && json_integer_value(v) >= 0);
}

/* 4:0.31,5:0.28 */
static void take_layers(struct metrics *m, const char *text, uint64_t step)
{
    struct metrics_layer layers[METRICS_LAYERS_MAX];
    size_t count = 0;
    while (text != NULL && count < METRICS_LAYERS_MAX) {
        unsigned long long layer = 0;
        double maxvio = NAN;
        if (sscanf(text, "%llu:%lf", &layer, &maxvio) != 2) {
            return;
        }
        layers[count++] = (struct metrics_layer){layer, maxvio};
        const char *comma = strchr(text, ',');
        text = comma != NULL ? comma + 1 : NULL;
    }
    if (count > 0) {
        m->layers = mem_resize(m->layers, count * sizeof *m->layers);
        memcpy(m->layers, layers, count * sizeof *layers);
        m->layer_count = count;
        m->layers_step = step;
    }
}

bool metrics_take(struct metrics *m, const json_t *object)
{
    struct metrics_row row = {.order = m->count};
    if (!count_of(object, "step", &row.step) || !count_of(object, "epoch", &row.epoch) ||
        !count_of(object, "tokens", &row.tokens) || row.step == 0) {
        return false;
    }
    for (size_t i = 0; i < METRICS; i++) {
        row.value[i] = value_of(json_object_get(object, metric_keys[i]));
    }
    void *rows = m->rows;
    mem_grow(&rows, &m->capacity, m->count + 1, sizeof *m->rows);
    m->rows = rows;
    m->rows[m->count++] = row;
    take_layers(m, json_string_value(json_object_get(object, "layer_maxvio")), row.step);
    return true;
}

/* ---- a file of them */

/* Older files have bare nan and inf, which are no JSON. */
static json_t *load_bare(const char *line, size_t len)
{
    static const char *const words[] = {"nan", "-nan", "inf", "-inf"};
    struct buf text = {0};
    for (size_t i = 0; i < len; i++) {
        buf_append(&text, line + i, 1);
        for (size_t w = 0; line[i] == ':' && w < sizeof words / sizeof words[0]; w++) {
            size_t word = strlen(words[w]);
            if (len - i - 1 > word && memcmp(line + i + 1, words[w], word) == 0) {
                buf_printf(&text, "\"%s\"", words[w]);
                i += word;
                break;
            }
        }
    }
    json_t *object = json_loadb((const char *)text.data, text.len, 0, NULL);
    buf_fini(&text);
    return object;
}

void metrics_take_line(struct metrics *m, const char *line, size_t len)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    if (object == NULL && len > 0) {
        object = load_bare(line, len);
    }
    m->broken_lines += !metrics_take(m, object);
    json_decref(object);
}

static void take_line(void *metrics, const char *line, size_t len)
{
    metrics_take_line(metrics, line, len);
}

int metrics_read(struct metrics *m, const char *path, struct err *err)
{
    return lines_read(path, take_line, m, &m->torn, err);
}

/* ---- the way that led here */

static int by_epoch(const void *a, const void *b)
{
    const struct metrics_row *x = a;
    const struct metrics_row *y = b;
    if (x->epoch != y->epoch) {
        return x->epoch < y->epoch ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

static void count_in(struct metrics *m, const struct metrics_row *row, bool lost)
{
    struct metrics_epoch *e = m->epoch_count > 0 ? &m->epochs[m->epoch_count - 1] : NULL;
    double ms = isfinite(row->value[METRIC_STEP_MS]) ? row->value[METRIC_STEP_MS] : 0;
    if (e == NULL || e->epoch != row->epoch) {
        m->epochs = mem_resize(m->epochs, (m->epoch_count + 1) * sizeof *m->epochs);
        e = &m->epochs[m->epoch_count++];
        *e = (struct metrics_epoch){.epoch = row->epoch, .last_step = row->step};
    }
    e->first_step = row->step;
    e->last_step = row->step > e->last_step ? row->step : e->last_step;
    e->lost_steps += lost;
    *(lost ? &e->lost_ms : &e->kept_ms) += ms;
    m->lost_steps += lost;
    m->lost_ms += lost ? ms : 0;
}

const struct metrics_epoch *metrics_epoch(const struct metrics *m, uint64_t epoch)
{
    for (size_t i = 0; i < m->epoch_count; i++) {
        if (m->epochs[i].epoch == epoch) {
            return &m->epochs[i];
        }
    }
    return NULL;
}

/* From the end: whatever is not before all that came later was done again, or given up. */
void metrics_finish(struct metrics *m)
{
    bool ordered = true;
    for (size_t i = 1; ordered && i < m->count; i++) {
        ordered = by_epoch(&m->rows[i - 1], &m->rows[i]) < 0;
    }
    if (!ordered) {
        qsort(m->rows, m->count, sizeof *m->rows, by_epoch);
    }
    size_t kept = m->count;
    uint64_t before = UINT64_MAX;
    for (size_t i = m->count; i-- > 0;) {
        const struct metrics_row row = m->rows[i];
        bool lost = row.step >= before;
        count_in(m, &row, lost);
        if (!lost) {
            before = row.step;
            m->rows[--kept] = row;
        }
    }
    m->count -= kept;
    if (m->count > 0 && kept > 0) {
        memmove(m->rows, m->rows + kept, m->count * sizeof *m->rows);
    }
}
