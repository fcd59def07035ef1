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
    if (t->global_batch % unit != 0) {
        return refuse(
            err, spec_name, spec->places.global_batch, "global_batch",
            "%u does not divide over %llu data-parallel ranks x micro_batch %u (allowed: a "
            "multiple of %llu)",
            t->global_batch, (unsigned long long)ways, t->micro_batch, (unsigned long long)unit);
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
    if (t->sequence_length <= model->num_nextn_predict_layers) {
        return refuse(err, spec_name, spec->places.sequence_length, "sequence_length",
                      "%u is too short for %u multi-token prediction layers (allowed: from %u)",
                      t->sequence_length, model->num_nextn_predict_layers,
                      model->num_nextn_predict_layers + 1);
    }
    if (t->pipeline > model->num_hidden_layers) {
        return refuse(err, spec_name, spec->places.pipeline, "parallel.pipeline",
                      "%u stages for %u layers (allowed: at most one stage a layer)", t->pipeline,
                      model->num_hidden_layers);
    }
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
