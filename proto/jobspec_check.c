/* Does the model fit the mesh and the batch? Apart from parsing because the model file is read at
 * another time. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/jobspec.h"
#include "proto/model_config.h"

static int refuse(struct err *err, const char *spec_name, struct jobspec_place place,
                  const char *key, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static int refuse(struct err *err, const char *spec_name, struct jobspec_place place,
                  const char *key, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    char *where = jobspec_place_text(spec_name, place);
    int rc = err_set(err, ERR_INVALID, "%s: key 'train.%s': %s", where, key, what);
    free(where);
    return rc;
}

static int check_batch(const struct jobspec *spec, uint32_t ranks, const char *spec_name,
                       struct err *err)
{
    const struct train_spec *t = &spec->train;
    /* Every rank of a pipeline stage works on its own sequences. */
    uint64_t ways = ranks / t->pipeline;
    uint64_t unit = ways * t->micro_batch;
    const struct schedule_spec *s = &t->plan;
    if (s->batch.from % unit != 0 || (s->batch.from != 0 && s->batch.from != t->global_batch &&
                                      s->batch.increment % unit != 0)) {
        return refuse(err, spec_name, spec->places.plan, "schedule.batch",
                      "from %u in increments of %u does not divide over %llu data-parallel ranks x "
                      "micro_batch %u (allowed: multiples of %llu)",
                      s->batch.from, s->batch.increment, (unsigned long long)ways, t->micro_batch,
                      (unsigned long long)unit);
    }
    if (t->global_batch % unit != 0) {
        return refuse(
            err, spec_name, spec->places.global_batch, "global_batch",
            "%u does not divide over %llu data-parallel ranks x micro_batch %u (allowed: a "
            "multiple of %llu)",
            t->global_batch, (unsigned long long)ways, t->micro_batch, (unsigned long long)unit);
    }
    /* Both directions of the V must fill (proto/pipeline_schedule.h). */
    uint64_t micros = t->pipeline_kind == PIPELINE_DUALPIPEV ? 2 * (uint64_t)t->pipeline : 1;
    uint32_t least = s->batch.from != 0 ? s->batch.from : t->global_batch;
    if (least / unit < micros) {
        return refuse(
            err, spec_name, s->batch.from != 0 ? spec->places.plan : spec->places.global_batch,
            s->batch.from != 0 ? "schedule.batch" : "global_batch",
            "%u is %llu micro-batches of %u for each of %llu data-parallel ranks; "
            "parallel.schedule dualpipev over %u ranks needs %llu (allowed: from %llu, or "
            "a smaller micro_batch, or parallel.schedule 1f1b)",
            least, (unsigned long long)(least / unit), t->micro_batch, (unsigned long long)ways,
            t->pipeline, (unsigned long long)micros, (unsigned long long)(micros * unit));
    }
    return 0;
}

/* Every stage of the pipeline has a layer at least. */
static int check_stages(const struct jobspec *spec, const struct model_config *model,
                        const char *spec_name, struct err *err)
{
    const struct train_spec *t = &spec->train;
    uint32_t each = t->pipeline_kind == PIPELINE_DUALPIPEV ? 2 : 1;
    if ((uint64_t)t->pipeline * each > model->num_hidden_layers) {
        return refuse(
            err, spec_name, spec->places.pipeline, "parallel.pipeline",
            "%u ranks with %u stage%s each, but the model has %u layers (allowed: up to %u)",
            t->pipeline, each, each == 1 ? "" : "s", model->num_hidden_layers,
            model->num_hidden_layers / each);
    }
    return 0;
}

/* Counts of rows go to matrix libraries as int. */
static int check_micro_batch(const struct jobspec *spec, const struct model_config *model,
                             const char *spec_name, struct err *err)
{
    const struct train_spec *t = &spec->train;
    uint64_t copies = model->n_routed_experts > 0 ? model->num_experts_per_tok : 1;
    uint64_t rows;
    if (__builtin_mul_overflow((uint64_t)t->micro_batch * t->sequence_length, copies * t->expert,
                               &rows) ||
        rows > INT32_MAX) {
        return refuse(err, spec_name, spec->places.micro_batch, "micro_batch",
                      "%u sequences of %u tokens to %llu experts each are too many at once over %u "
                      "ranks (allowed: 2^31 - 1 in all; make it smaller)",
                      t->micro_batch, t->sequence_length, (unsigned long long)copies, t->expert);
    }
    return 0;
}

int jobspec_check_model(const struct jobspec *spec, const struct model_config *model,
                        const char *spec_name, struct err *err)
{
    const struct train_spec *t = &spec->train;
    if (!spec->has_train) {
        return 0;
    }
    if (t->sequence_length > model->max_position_embeddings) {
        return refuse(err, spec_name, spec->places.sequence_length, "sequence_length",
                      "%u is over the model's max_position_embeddings (allowed: up to %u)",
                      t->sequence_length, model->max_position_embeddings);
    }
    for (uint32_t i = 0; i < t->plan.contexts; i++) {
        if (t->plan.context[i].length <= model->num_nextn_predict_layers) {
            return refuse(err, spec_name, spec->places.plan, "schedule.context",
                          "%u is too short for %u multi-token prediction layers (allowed: from %u)",
                          t->plan.context[i].length, model->num_nextn_predict_layers,
                          model->num_nextn_predict_layers + 1);
        }
    }
    if (t->sequence_length <= model->num_nextn_predict_layers) {
        return refuse(err, spec_name, spec->places.sequence_length, "sequence_length",
                      "%u is too short for %u multi-token prediction layers (allowed: from %u)",
                      t->sequence_length, model->num_nextn_predict_layers,
                      model->num_nextn_predict_layers + 1);
    }
    TRY(check_stages(spec, model, spec_name, err));
    TRY(check_micro_batch(spec, model, spec_name, err));
    if (t->expert > 1 && model->n_routed_experts % t->expert != 0) {
        return refuse(
            err, spec_name, spec->places.expert, "parallel.expert",
            "%u ranks do not divide the model's %u routed experts (allowed: a divisor of it)",
            t->expert, model->n_routed_experts);
    }
    if (t->expert > 1 && model->n_routed_experts == 0) {
        return refuse(err, spec_name, spec->places.expert, "parallel.expert",
                      "%u for a model without experts (allowed: 1)", t->expert);
    }
    for (uint32_t nodes = spec->nodes_min; nodes <= spec->nodes_max; nodes++) {
        TRY(check_batch(spec, jobspec_world_size(spec, nodes), spec_name, err));
    }
    return 0;
}

int jobspec_model(const struct jobspec *spec, const char *json, size_t json_bytes,
                  const char *spec_name, struct model_config *model, struct err *err)
{
    const struct rope_scaling *r = &spec->train.rope;
    TRY(model_config_parse(model, json, json_bytes, spec->train.model, err));
    if (r->yarn) {
        uint32_t original = model->rope.yarn ? model->rope.original_max_position_embeddings
                                             : model->max_position_embeddings;
        model->rope = *r;
        if (r->original_max_position_embeddings == 0) {
            model->rope.original_max_position_embeddings = original;
        }
        double reach = r->factor * model->rope.original_max_position_embeddings;
        if (reach > model->max_position_embeddings) {
            model->max_position_embeddings =
                reach < MODEL_CONFIG_POSITIONS_MAX ? (uint32_t)reach : MODEL_CONFIG_POSITIONS_MAX;
        }
    }
    return jobspec_check_model(spec, model, spec_name, err);
}
