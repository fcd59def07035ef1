/* What the run was: its data, its time and money, its model, its job file. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/format.h"
#include "proto/model_config.h"
#include "proto/pick.h"
#include "report/chart.h"
#include "report/parts.h"

/* ---- data */

/* The sources as the job file has them: one name, or a list. */
static size_t source_count(const json_t *train)
{
    return json_is_string(train) ? 1 : json_array_size(train);
}

static const char *source_name(const json_t *train, size_t i)
{
    return json_is_string(train) ? json_string_value(train)
                                 : pick_text(json_array_get(train, i), "prefix");
}

static double source_weight(const json_t *train, size_t i)
{
    const json_t *weight = pick(json_array_get(train, i), "weight");
    return weight != NULL ? json_number_value(weight) : 1;
}

static void percent_cell(struct parts *p, double part, double whole)
{
    if (whole > 0) {
        doc_cell(p->doc, "%.2f%%", 100 * part / whole);
    } else {
        parts_text_cell(p, "");
    }
}

/* What a checkpoint counted; NULL: it did not, or not of these sources. */
static const json_t *counted(const struct parts *p, size_t sources)
{
    const json_t *list = pick(p->facts, "layout.sources");
    return json_array_size(list) == sources ? list : NULL;
}

static void data_table(struct parts *p, const json_t *train, const json_t *seen)
{
    static const char *const columns[] = {"source",           ">tokens in it", ">weight",
                                          ">sequences shown", ">tokens shown", ">share",
                                          ">epochs"};
    size_t count = source_count(train);
    double length = (double)pick_count(p->facts, "layout.sequence_length");
    double weights = 0;
    double all = 0;
    for (size_t i = 0; i < count; i++) {
        weights += source_weight(train, i);
        all += (double)pick_count(json_array_get(seen, i), "shown");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *s = json_array_get(seen, i);
        double shown = (double)pick_count(s, "shown");
        double epoch = (double)pick_count(s, "epoch");
        parts_text_cell(p, source_name(train, i));
        if (seen != NULL) {
            format_count(doc_cell_buf(p->doc), (double)pick_count(s, "tokens"));
        } else {
            parts_text_cell(p, "");
        }
        percent_cell(p, source_weight(train, i), weights);
        if (seen == NULL) {
            parts_text_cell(p, "");
            parts_text_cell(p, "");
            parts_text_cell(p, "");
            parts_text_cell(p, "");
            continue;
        }
        doc_cell(p->doc, "%.0f", shown);
        format_count(doc_cell_buf(p->doc), shown * length);
        percent_cell(p, shown, all);
        doc_cell(p->doc, epoch > 0 ? "%.3f" : "-", epoch > 0 ? shown / epoch : 0);
    }
    doc_table(p->doc, columns, 7);
}

static void data_terms(struct parts *p, const json_t *data, const json_t *seen)
{
    const json_t *rate = pick(data, "fim.rate");
    struct buf line = {0};
    buf_printf(&line, "Packing: %s.", pick_text(data, "packing"));
    if (json_number_value(rate) > 0) {
        buf_printf(&line, " Fill in the middle: %g of the documents.", json_number_value(rate));
    }
    if (pick_text(data, "valid")[0] != 0) {
        buf_printf(&line, " Validation: %s.", pick_text(data, "valid"));
    }
    uint64_t shown = 0;
    for (size_t i = 0; i < json_array_size(seen); i++) {
        shown += pick_count(json_array_get(seen, i), "shown");
    }
    uint64_t position = pick_count(p->facts, "layout.position");
    if (seen != NULL && position > shown) {
        buf_printf(&line, " %" PRIu64 " sequences were passed over.", position - shown);
    }
    doc_text(p->doc, "%s", buf_cstr(&line));
    buf_fini(&line);
}

void parts_data(struct parts *p)
{
    const json_t *data = pick(p->facts, "spec.train.data");
    const json_t *train = pick(data, "train");
    size_t count = source_count(train);
    if (count == 0) {
        return;
    }
    const json_t *seen = counted(p, count);
    doc_heading(p->doc, "Data seen");
    if (seen != NULL) {
        doc_text(p->doc, "As counted at the checkpoint of step %" PRIu64 ".",
                 pick_count(p->facts, "layout.step"));
    } else {
        doc_text(p->doc, "No checkpoint has counted yet what was shown of each source; by their "
                         "weights they share all tokens of the run.");
    }
    data_table(p, train, seen);
    data_terms(p, data, seen);
}

/* ---- time and cost */

static const char *category_name(const char *category)
{
    static const char *const names[][2] = {{"productive", "productive"},
                                           {"init", "start"},
                                           {"data_wait", "waiting for data"},
                                           {"checkpoint_stall", "held up by checkpoints"},
                                           {"lost_progress", "steps that were lost"},
                                           {"recovery", "recovery"},
                                           {"held", "held"},
                                           {"other", "start, end, between steps"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i][0], category) == 0) {
            return names[i][1];
        }
    }
    return category;
}

static void draw_parts(struct parts *p, const json_t *time)
{
    struct chart_part parts[CHART_PARTS] = {0};
    struct buf svg = {0};
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(time) && count < CHART_PARTS; i++) {
        const json_t *t = json_array_get(time, i);
        parts[count++] = (struct chart_part){category_name(pick_text(t, "category")),
                                             (double)pick_count(t, "gpu_ms")};
    }
    const struct doc_figure figure = {"cost", "Where the time went", "", ""};
    chart_parts_svg(&svg, figure.title, parts, count, doc_wants_alone(p->doc));
    doc_figure(p->doc, &figure, &svg);
    buf_fini(&svg);
}

static void cost_row(struct parts *p, const char *name, const json_t *t, uint64_t whole,
                     bool priced)
{
    parts_text_cell(p, name);
    format_gpu_hours(doc_cell_buf(p->doc), pick_count(t, "gpu_ms"));
    format_percent(doc_cell_buf(p->doc), pick_count(t, "gpu_ms"), whole);
    if (priced) {
        format_usd(doc_cell_buf(p->doc), pick_int(t, "cost_micro_usd"));
    }
}

void parts_cost(struct parts *p)
{
    const json_t *time = pick(p->facts, "time");
    const json_t *usage = pick(p->facts, "usage");
    uint64_t whole = pick_count(usage, "gpu_ms");
    bool gpus = parts_has_gpus(p);
    const char *columns[] = {"what for", gpus ? ">GPU-hours" : ">rank-hours", ">share", ">cost"};
    if (whole == 0) {
        return;
    }
    bool priced = pick(usage, "cost_micro_usd") != NULL;
    doc_heading(p->doc, "Time and cost");
    if (!priced) {
        doc_text(p->doc, "No price is known for this machine, so there is no cost (dstrain report "
                         "--price gives one).");
    }
    if (json_array_size(time) > 0) {
        draw_parts(p, time);
    }
    for (size_t i = 0; i < json_array_size(time); i++) {
        const json_t *t = json_array_get(time, i);
        cost_row(p, category_name(pick_text(t, "category")), t, whole, priced);
    }
    cost_row(p, "all", usage, whole, priced);
    doc_table(p->doc, columns, priced ? 4 : 3);
}

/* ---- model */

static void row(struct parts *p, const char *name, const char *value)
{
    doc_cell(p->doc, "%s", name);
    parts_text_cell(p, value);
}

static void row_count(struct parts *p, const char *name, uint64_t count)
{
    doc_cell(p->doc, "%s", name);
    format_count(doc_cell_buf(p->doc), (double)count);
}

static void model_rows(struct parts *p, const json_t *model)
{
    struct model_config c;
    char *text = json_dumps(model, JSON_COMPACT);
    int rc = text == NULL ? ERR_INVALID : model_config_parse(&c, text, strlen(text), "model", NULL);
    free(text);
    if (rc != 0) {
        return;
    }
    row_count(p, "parameters", model_config_params_total(&c));
    row_count(p, "active for a token", model_config_params_active(&c));
    if (c.num_nextn_predict_layers > 0) {
        row_count(p, "of MTP modules, besides", model_config_params_mtp(&c));
    }
    doc_cell(p->doc, "layers");
    doc_cell(p->doc, "%u, the first %u dense", c.num_hidden_layers,
             c.n_routed_experts > 0 ? c.first_k_dense_replace : c.num_hidden_layers);
    doc_cell(p->doc, "hidden size, heads");
    doc_cell(p->doc, "%u, %u", c.hidden_size, c.num_attention_heads);
    if (c.n_routed_experts > 0) {
        doc_cell(p->doc, "experts");
        doc_cell(p->doc, "%u routed, %u of them for a token, %u shared", c.n_routed_experts,
                 c.num_experts_per_tok, c.n_shared_experts);
    }
    doc_cell(p->doc, "vocabulary");
    doc_cell(p->doc, "%u", c.vocab_size);
}

/* ---- job file */

static void scalar_cell(struct parts *p, const json_t *v)
{
    char *text = json_is_string(v) ? mem_strdup(json_string_value(v))
                                   : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    parts_text_cell(p, text != NULL ? text : "");
    free(text);
}

static void spec_rows(struct parts *p)
{
    static const char *const rows[][2] = {
        {"precision", "train.precision"},
        {"steps", "train.steps"},
        {"tokens", "train.tokens"},
        {"sequence length", "train.sequence_length"},
        {"sequences a batch", "train.global_batch"},
        {"learning rate, greatest", "train.optimizer.lr"},
        {"learning rate, least", "train.optimizer.lr_min"},
        {"warm-up steps", "train.optimizer.warmup_steps"},
        {"weight decay", "train.optimizer.weight_decay"},
        {"bias update speed", "train.bias_update_speed"},
        {"MTP lambda", "train.mtp_lambda"},
        {"seed", "train.seed"},
        {"begins with", "train.init_from"},
        {"command", "command"},
    };
    const json_t *spec = pick(p->facts, "spec");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const json_t *v = pick(spec, rows[i][1]);
        if (v != NULL) {
            doc_cell(p->doc, "%s", rows[i][0]);
            scalar_cell(p, v);
        }
    }
    const json_t *mesh = pick(p->facts, "layout.mesh");
    if (mesh != NULL) {
        doc_cell(p->doc, "mesh");
        doc_cell(p->doc, "pipeline %" PRIu64 " x expert %" PRIu64 " x data %" PRIu64 " %s",
                 pick_count(mesh, "pipeline"), pick_count(mesh, "expert"), pick_count(mesh, "data"),
                 pick_text(mesh, "schedule"));
    }
    if (pick(p->facts, "nodes_requested") != NULL) {
        doc_cell(p->doc, "asked for");
        doc_cell(p->doc, "%" PRIu64 " nodes with %" PRIu64 " GPUs each",
                 pick_count(p->facts, "nodes_requested"), pick_count(p->facts, "gpus_per_node"));
    }
    if (pick_text(p->facts, "layout.origin")[0] != 0) {
        row(p, "first weights", pick_text(p->facts, "layout.origin"));
    }
}

void parts_setup(struct parts *p)
{
    static const char *const columns[] = {"setting", "value"};
    const json_t *model = pick(p->facts, "layout.model");
    const json_t *spec = pick(p->facts, "spec");
    model = model != NULL ? model : pick(p->facts, "model");
    if (model == NULL && spec == NULL) {
        return;
    }
    doc_heading(p->doc, "Model and settings");
    if (model != NULL) {
        model_rows(p, model);
    }
    spec_rows(p);
    doc_table(p->doc, columns, 2);
    if (spec != NULL) {
        char *text =
            json_dumps(spec, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
        doc_fold(p->doc, "The whole job file, with every default", text != NULL ? text : "");
        free(text);
    }
    if (model != NULL) {
        char *text =
            json_dumps(model, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
        doc_fold(p->doc, "The model's config.json", text != NULL ? text : "");
        free(text);
    }
}
