/* plan: what a run that does not exist yet takes. Asks nobody. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/page.h"
#include "lib/file.h"
#include "proto/format.h"
#include "proto/jobspec.h"
#include "proto/pick.h"
#include "proto/plan_run.h"

#define CONFIG_MAX   ((size_t)1 << 20)
#define GPUS         2048
#define TOKENS       UINT64_C(14800000000000)
#define SEQUENCE     4096
#define GLOBAL_BATCH 15360
#define MEMORY_GB    80.0
#define GPUS_MAX     (1u << 20)
#define DAY_MS       86400e3
#define MICRO        1e6
#define HOUR_MS      3600e3

struct plan {
    struct model_config model;
    struct plan_run run;
    struct plan_cost cost;
    uint64_t gpus, tokens, global_batch;
    double mfu, peak_flops, usd_per_hour, memory_gb;
    double days, budget; /* asked; 0: not */
};

/* ---- the command line */

static int ask_count(const struct args *a, const char *name, uint64_t max, uint64_t *value,
                     struct err *err)
{
    const char *text = args_get(a, name);
    if (text == NULL) {
        return 0;
    }
    struct err why = {0};
    if (count_parse(text, value, &why) != 0 || *value == 0 || *value > max) {
        return err_set(err, ERR_USAGE, "--%s is a count from 1 to %" PRIu64 ", not '%s'", name, max,
                       text);
    }
    return 0;
}

static int ask_number(const struct args *a, const char *name, double max, double *value,
                      struct err *err)
{
    const char *text = args_get(a, name);
    char *end;
    if (text == NULL) {
        return 0;
    }
    *value = strtod(text, &end);
    if (end == text || *end != 0 || !(*value > 0) || *value > max) {
        return err_set(err, ERR_USAGE, "--%s is a number above 0 and up to %g, not '%s'", name, max,
                       text);
    }
    return 0;
}

static int ask_model(const struct args *a, struct plan *p, struct err *err)
{
    const char *path = args_get(a, "model");
    struct buf text = {0};
    if (path == NULL) { /* the published shape is what a config.json without keys means */
        return model_config_parse(&p->model, "{}", 2, "deepseek-v3", err);
    }
    int rc = file_read(path, CONFIG_MAX, &text, err);
    if (rc == 0) {
        rc = model_config_parse(&p->model, (const char *)text.data, text.len, path, err);
    }
    buf_fini(&text);
    return rc;
}

static int ask_run(const struct args *a, struct plan *p, struct err *err)
{
    uint64_t pipeline = 0, expert = 0, sequence = SEQUENCE, micro = 1;
    const char *precision = args_get(a, "precision"), *schedule = args_get(a, "schedule");
    p->global_batch = GLOBAL_BATCH;
    TRY(ask_count(a, "pipeline", GPUS_MAX, &pipeline, err));
    TRY(ask_count(a, "expert", GPUS_MAX, &expert, err));
    TRY(ask_count(a, "sequence-length", UINT32_MAX, &sequence, err));
    TRY(ask_count(a, "micro-batch", UINT32_MAX / sequence, &micro, err));
    TRY(ask_count(a, "global-batch", UINT32_MAX, &p->global_batch, err));
    enum precision kind = PRECISION_FP8;
    if (precision != NULL && strcmp(precision, "fp8") != 0) {
        kind = strcmp(precision, "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32;
    }
    p->run = (struct plan_run){
        .model = &p->model,
        .recipe = recipe_of(kind),
        .kind =
            schedule != NULL && strcmp(schedule, "1f1b") == 0 ? PIPELINE_1F1B : PIPELINE_DUALPIPEV,
        .pipeline = (uint32_t)pipeline,
        .expert = (uint32_t)expert,
        .zero = 1,
        .sequence_length = (uint32_t)sequence,
        .micro_batch = (uint32_t)micro,
        .ema = true,
    };
    if (kind == PRECISION_FP8) {
        p->run.recipe.rest = PRECISION_BF16; /* what a GPU stores where the recipe says nothing */
    }
    return 0;
}

/* ---- the plan */

/* GPU-seconds of `tokens`. */
static double gpu_seconds(const struct plan *p, double tokens)
{
    return tokens * plan_flops_per_token(&p->model, p->run.sequence_length) /
           (p->peak_flops * p->mfu);
}

/* The fewest GPUs that need no more than the days asked for, and have a mesh. */
static int gpus_for_days(struct plan *p, struct err *err)
{
    struct plan_run asked = p->run;
    uint64_t bytes = (uint64_t)(p->memory_gb * 1e9);
    double least = gpu_seconds(p, (double)p->tokens) / (p->days * 86400);
    for (uint64_t gpus = ((uint64_t)ceil(least / 8) + (least == 0)) * 8; gpus <= GPUS_MAX;
         gpus = gpus < 1024 ? gpus + 8 : gpus + gpus / 64 / 8 * 8) {
        struct err why = {0};
        p->run = asked;
        if (plan_mesh(&p->run, (uint32_t)gpus, (uint32_t)p->global_batch, bytes, &why) == 0) {
            p->gpus = gpus;
            return 0;
        }
    }
    return err_set(err, ERR_FAILED,
                   "no plan: %.0f GPUs or more, and no number of them has a mesh for %" PRIu64
                   " sequences a step (another --global-batch, --pipeline or --expert)",
                   ceil(least), p->global_batch);
}

static int make(const struct args *a, struct plan *p, struct err *err)
{
    double peak = PLAN_PEAK_FLOPS / 1e12;
    p->mfu = PLAN_MFU;
    p->usd_per_hour = PLAN_MICRO_USD_PER_GPU_HOUR / MICRO;
    p->memory_gb = MEMORY_GB;
    TRY(ask_model(a, p, err));
    TRY(ask_run(a, p, err));
    TRY(ask_number(a, "mfu", 1, &p->mfu, err));
    TRY(ask_number(a, "peak", 1e6, &peak, err));
    TRY(ask_number(a, "price", 1e6, &p->usd_per_hour, err));
    TRY(ask_number(a, "memory", 1e5, &p->memory_gb, err));
    TRY(ask_number(a, "days", 1e5, &p->days, err));
    TRY(ask_number(a, "budget", 1e12, &p->budget, err));
    TRY(ask_count(a, "gpus", GPUS_MAX, &p->gpus, err));
    TRY(ask_count(a, "tokens", UINT64_C(1000000000000000), &p->tokens, err));
    p->peak_flops = peak * 1e12;
    bool has_gpus = p->gpus > 0, has_tokens = p->tokens > 0;
    if (p->budget > 0 && (has_tokens || (p->days > 0 && has_gpus))) {
        return err_set(err, ERR_USAGE,
                       "--budget says how many tokens there will be: leave out --%s",
                       has_tokens ? "tokens" : "days or --gpus");
    }
    if (p->days > 0 && has_gpus && has_tokens) {
        return err_set(err, ERR_USAGE,
                       "--gpus, --tokens and --days: any two of them give the third");
    }
    double per_token = gpu_seconds(p, 1);
    if (p->budget > 0) {
        p->tokens = (uint64_t)(p->budget / p->usd_per_hour * 3600 / per_token);
    } else if (has_gpus && p->days > 0) {
        p->tokens = (uint64_t)((double)p->gpus * p->days * 86400 / per_token);
    } else if (!has_tokens) {
        p->tokens = TOKENS;
    }
    if (p->tokens == 0) {
        return err_set(err, ERR_FAILED, "no plan: that is not enough for one token");
    }
    if (p->days > 0 && !has_gpus) {
        TRY(gpus_for_days(p, err));
    } else {
        p->gpus = has_gpus ? p->gpus : GPUS;
        TRY(plan_mesh(&p->run, (uint32_t)p->gpus, (uint32_t)p->global_batch,
                      (uint64_t)(p->memory_gb * 1e9), err));
    }
    p->cost = plan_cost_of(&p->run, p->tokens, p->mfu, p->peak_flops,
                           (int64_t)llround(p->usd_per_hour * MICRO));
    return 0;
}

/* ---- as JSON */

static json_t *rank_json(uint32_t index, const struct plan_memory *m)
{
    json_t *layers = json_array();
    for (uint32_t i = 0; i < m->stage_count; i++) {
        json_array_append_new(layers, json_pack("[I,I]", (json_int_t)m->first_layer[i],
                                                (json_int_t)(m->first_layer[i] + m->layers[i])));
    }
    return json_pack("{s:I,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "pipeline_index",
                     (json_int_t)index, "layers", layers, "params", (json_int_t)m->params,
                     "weights_bytes", (json_int_t)m->weights, "gradients_bytes",
                     (json_int_t)m->gradients, "optimizer_bytes", (json_int_t)m->optimizer,
                     "activations_bytes", (json_int_t)m->activations, "workspace_bytes",
                     (json_int_t)m->workspace, "reserved_bytes", (json_int_t)m->reserved,
                     "memory_bytes", (json_int_t)m->total, "host_bytes", (json_int_t)m->host);
}

static int plan_json(const struct plan *p, json_t **object, struct err *err)
{
    const struct plan_run *r = &p->run;
    const struct plan_cost *c = &p->cost;
    json_t *ranks = json_array();
    uint64_t most = 0;
    for (uint32_t i = 0; i < r->pipeline; i++) {
        struct plan_memory m;
        TRY(plan_memory(r, i, &m, err));
        most = m.total > most ? m.total : most;
        json_array_append_new(ranks, rank_json(i, &m));
    }
    double compute_ms = c->step_ms - c->bubble_ms;
    *object = json_pack(
        "{s:s,s:I,s:I,s:I,s:f,s:{s:I,s:I,s:I,s:s},s:I,s:I,s:I,s:I,s:f,s:{s:f,s:f},s:I,s:f,s:f,"
        "s:I,s:f,s:f,s:I,s:o}",
        "schema", "ds/plan/v1", "params_total", (json_int_t)model_config_params_total(&p->model),
        "params_active", (json_int_t)model_config_params_active(&p->model), "params_mtp",
        (json_int_t)model_config_params_mtp(&p->model), "flops_per_token", c->flops_per_token,
        "mesh", "pipeline", (json_int_t)r->pipeline, "expert", (json_int_t)r->expert, "data",
        (json_int_t)r->data, "schedule", r->kind == PIPELINE_DUALPIPEV ? "dualpipev" : "1f1b",
        "gpus", (json_int_t)p->gpus, "tokens", (json_int_t)p->tokens, "steps", (json_int_t)c->steps,
        "memory_bytes_per_rank", (json_int_t)most, "step_ms", c->step_ms, "phases_ms", "compute",
        compute_ms, "bubble", c->bubble_ms, "gpu_ms", (json_int_t)c->gpu_ms, "gpu_hours",
        (double)c->gpu_ms / HOUR_MS, "days", c->days, "cost_micro_usd", (json_int_t)c->micro_usd,
        "mfu", p->mfu, "peak_flops", p->peak_flops, "memory_limit_bytes",
        (json_int_t)(p->memory_gb * 1e9), "ranks", ranks);
    return 0;
}

/* ---- for people */

static void layers_cell(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    size_t i;
    const json_t *range;
    json_array_foreach(value, i, range)
    {
        json_int_t first = json_integer_value(json_array_get(range, 0));
        json_int_t end = json_integer_value(json_array_get(range, 1));
        buf_printf(out, "%s%" JSON_INTEGER_FORMAT, i > 0 ? "," : "", first);
        if (end > first + 1) {
            buf_printf(out, "-%" JSON_INTEGER_FORMAT, end - 1);
        }
    }
}

static void gigabytes_cell(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_printf(out, "%.2f", json_number_value(value) / 1e9);
}

#define GB(title, key)                                                                             \
    {                                                                                              \
        title, key, COLUMN_RIGHT, gigabytes_cell, NULL                                             \
    }
static const struct column rank_columns[] = {
    {"PIPELINE", "pipeline_index", COLUMN_RIGHT, NULL, NULL},
    {"LAYERS", "layers", 0, layers_cell, NULL},
    {"PARAMS", "params", COLUMN_RIGHT, cell_count, NULL},
    GB("WEIGHTS", "weights_bytes"),
    GB("GRADIENTS", "gradients_bytes"),
    GB("OPTIMIZER", "optimizer_bytes"),
    GB("ACTIVATIONS", "activations_bytes"),
    GB("WORKSPACE", "workspace_bytes"),
    GB("RESERVED", "reserved_bytes"),
    GB("GB", "memory_bytes"),
};
static const struct listing rank_listing = LISTING(NULL, NULL, rank_columns);

static void count_line(struct buf *out, const char *label, double count, const char *unit)
{
    page_label(out, label);
    format_count(out, count);
    buf_printf(out, "%s\n", unit);
}

static void plan_page(const struct output *o, struct buf *out, const json_t *plan)
{
    const struct table_view view = {&o->terminal, o->format == OUTPUT_WIDE, o->no_header};
    double mfu = json_number_value(pick(plan, "mfu"));
    page_label(out, "model");
    format_count(out, (double)pick_count(plan, "params_total"));
    buf_append_str(out, " parameters, ");
    format_count(out, (double)pick_count(plan, "params_active"));
    buf_append_str(out, " active, and ");
    format_count(out, (double)pick_count(plan, "params_mtp"));
    buf_append_str(out, " of MTP modules\n");
    count_line(out, "tokens", (double)pick_count(plan, "tokens"), "");
    count_line(out, "a token", json_number_value(pick(plan, "flops_per_token")), " FLOPs");
    page_label(out, "mesh");
    buf_printf(out,
               "%" PRIu64 " GPUs = pipeline %" PRIu64 " (%s) x expert %" PRIu64 " x data %" PRIu64
               "\n",
               pick_count(plan, "gpus"), pick_count(plan, "mesh.pipeline"),
               pick_text(plan, "mesh.schedule"), pick_count(plan, "mesh.expert"),
               pick_count(plan, "mesh.data"));
    page_label(out, "step");
    buf_printf(out, "%.3f s, %.3f s of it bubble; %" PRIu64 " steps\n",
               json_number_value(pick(plan, "step_ms")) / 1000,
               json_number_value(pick(plan, "phases_ms.bubble")) / 1000, pick_count(plan, "steps"));
    page_label(out, "time");
    buf_printf(out, "%.2f days, ", json_number_value(pick(plan, "days")));
    format_count(out, json_number_value(pick(plan, "gpu_hours")));
    buf_append_str(out, " GPU-hours\n");
    page_label(out, "cost");
    format_usd(out, pick_int(plan, "cost_micro_usd"));
    buf_append_str(out, "\n");
    page_label(out, "assumed");
    buf_printf(out, "%.2f%% of a peak of %.1f TFLOP/s (--mfu, --peak): a plan measures nothing\n",
               100 * mfu, json_number_value(pick(plan, "peak_flops")) / 1e12);
    page_label(out, "memory");
    buf_printf(out, "%.2f GB a rank at most, of %.2f; GB of each pipeline index:\n\n",
               (double)pick_count(plan, "memory_bytes_per_rank") / 1e9,
               (double)pick_count(plan, "memory_limit_bytes") / 1e9);
    table_text(out, json_object_get(plan, "ranks"), rank_columns,
               sizeof rank_columns / sizeof rank_columns[0], &view);
}

int cmd_plan(struct ctl *ctl, struct buf *out, struct err *err)
{
    struct plan plan = {0};
    json_t *object = NULL;
    TRY(make(&ctl->args, &plan, err));
    TRY(plan_json(&plan, &object, err));
    if (ctl->output.format == OUTPUT_CSV) { /* a line a rank */
        json_object_set(object, "items", json_object_get(object, "ranks"));
        return output_list(&ctl->output, out, object, &rank_listing, err);
    }
    return output_one(&ctl->output, out, object, NULL, plan_page, err);
}
