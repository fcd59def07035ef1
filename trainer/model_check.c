#include "trainer/model_check.h"

#include <limits.h>

struct bound {
    const char *key;
    uint64_t value, low, high;
};

static int check_bounds(const struct bound *bounds, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct bound *b = &bounds[i];
        if (b->value < b->low || b->value > b->high) {
            return err_set(err, ERR_CONFIG, "model: %s is %llu, must be %llu to %llu", b->key,
                           (unsigned long long)b->value, (unsigned long long)b->low,
                           (unsigned long long)b->high);
        }
    }
    return 0;
}

static int check_router(const struct model_config *c, const struct mesh *mesh, struct err *err)
{
    uint32_t experts = c->n_routed_experts, groups = c->n_group;
    const struct bound bounds[] = {
        {"moe_intermediate_size", c->moe_intermediate_size, 1, INT_MAX},
        {"num_experts_per_tok", c->num_experts_per_tok, 1, experts},
        {"n_group", groups, 1, experts},
        {"topk_group", c->topk_group, 1, groups},
    };
    TRY(check_bounds(bounds, sizeof bounds / sizeof *bounds, err));
    if (experts % groups != 0) {
        return err_set(err, ERR_CONFIG,
                       "model: n_routed_experts %u does not divide into n_group %u", experts,
                       groups);
    }
    if (c->num_experts_per_tok > experts / groups * c->topk_group) {
        return err_set(
            err, ERR_CONFIG,
            "model: num_experts_per_tok %u is more than the %u experts of topk_group %u groups",
            c->num_experts_per_tok, experts / groups * c->topk_group, c->topk_group);
    }
    if (mesh->expert > experts) {
        return err_set(err, ERR_CONFIG,
                       "parallel: expert %u is more than the model's %u routed experts",
                       mesh->expert, experts);
    }
    return 0;
}

/* Rows and columns go to matrix products as int. */
static int check_sizes(const struct model_options *o, struct err *err)
{
    const struct model_config *c = o->config;
    uint64_t rows = (uint64_t)o->micro_batch * o->sequence_length;
    uint64_t qk = (uint64_t)c->qk_nope_head_dim + c->qk_rope_head_dim;
    uint64_t kv = (uint64_t)c->qk_nope_head_dim + c->v_head_dim;
    uint64_t pairs = rows * (c->n_routed_experts > 0 ? c->num_experts_per_tok : 1);
    const struct bound bounds[] = {
        {"micro_batch * sequence_length", rows, 1, INT_MAX},
        {"tokens * num_experts_per_tok over the expert group", pairs * o->mesh->expert, 1, INT_MAX},
        {"num_attention_heads * qk head dim + kv_lora_rank",
         c->num_attention_heads * qk + c->kv_lora_rank + c->qk_rope_head_dim, 1, INT_MAX},
        {"num_attention_heads * (qk_nope_head_dim + v_head_dim)", c->num_attention_heads * kv, 1,
         INT_MAX},
        {"2 * intermediate_size", 2 * (uint64_t)c->intermediate_size, 1, INT_MAX},
        {"2 * moe_intermediate_size * n_shared_experts",
         2 * (uint64_t)c->moe_intermediate_size * c->n_shared_experts, 0, INT_MAX},
    };
    return check_bounds(bounds, sizeof bounds / sizeof *bounds, err);
}

static int check_stages(const struct model_options *o, struct err *err)
{
    uint32_t layers = o->config->num_hidden_layers;
    if (o->stages == 0 && o->mesh->pipeline != 1) {
        return err_set(err, ERR_CONFIG, "parallel: pipeline is %u, but no stages are given",
                       o->mesh->pipeline);
    }
    for (uint32_t i = 0; i < o->stages; i++) {
        const struct model_stage *s = &o->stage[i];
        if (s->layers == 0 || s->slots == 0 || s->first_layer >= layers ||
            s->layers > layers - s->first_layer) {
            return err_set(err, ERR_CONFIG,
                           "parallel: a stage of %u layers from layer %u on with %u slots is none "
                           "of a model of %u layers",
                           s->layers, s->first_layer, s->slots, layers);
        }
    }
    return 0;
}

int model_check(const struct model_options *o, struct err *err)
{
    const struct model_config *c = o->config;
    const struct bound bounds[] = {
        {"vocab_size", c->vocab_size, 1, INT_MAX},
        {"hidden_size", c->hidden_size, 1, INT_MAX / 2},
        {"num_hidden_layers", c->num_hidden_layers, 1, INT_MAX},
        {"num_attention_heads", c->num_attention_heads, 1, INT_MAX},
        {"kv_lora_rank", c->kv_lora_rank, 1, INT_MAX},
        {"qk_nope_head_dim", c->qk_nope_head_dim, 1, INT_MAX},
        {"qk_rope_head_dim", c->qk_rope_head_dim, 2, INT_MAX},
        {"v_head_dim", c->v_head_dim, 1, INT_MAX},
        {"intermediate_size", c->intermediate_size, 1, INT_MAX},
        {"micro_batch", o->micro_batch, 1, INT_MAX},
        {"sequence_length", o->sequence_length, 1 + (uint64_t)c->num_nextn_predict_layers, INT_MAX},
    };
    TRY(check_bounds(bounds, sizeof bounds / sizeof *bounds, err));
    if (c->qk_rope_head_dim % 2 != 0) {
        return err_set(err, ERR_CONFIG, "model: qk_rope_head_dim is %u, must be even",
                       c->qk_rope_head_dim);
    }
    if (c->n_routed_experts > 0) {
        TRY(check_router(c, o->mesh, err));
    }
    TRY(check_stages(o, err));
    return check_sizes(o, err);
}
