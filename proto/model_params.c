/* Parameter counts from the shapes of reference 8.2's tensor list. The router's balancing bias
 * counts, as it does in the published totals. Cannot overflow: see the bounds in model_config.c. */
#include "proto/model_config.h"

static uint64_t mlp(const struct model_config *c, uint64_t width)
{
    return 3 * (uint64_t)c->hidden_size * width;
}

static uint64_t expert(const struct model_config *c)
{
    return mlp(c, c->moe_intermediate_size);
}

/* Multi-head latent attention with the norms of both latents. */
static uint64_t attention(const struct model_config *c)
{
    uint64_t hidden = c->hidden_size;
    uint64_t q_out = (uint64_t)c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    uint64_t q = c->q_lora_rank > 0 ? c->q_lora_rank * (hidden + 1 + q_out) : hidden * q_out;
    uint64_t kv_out = (uint64_t)c->num_attention_heads * (c->qk_nope_head_dim + c->v_head_dim);
    uint64_t kv = hidden * (c->kv_lora_rank + c->qk_rope_head_dim) + c->kv_lora_rank * (1 + kv_out);
    uint64_t o = hidden * c->num_attention_heads * c->v_head_dim;
    return q + kv + o;
}

/* A block with `routed` of its experts. */
static uint64_t layer(const struct model_config *c, uint32_t index, uint64_t routed)
{
    uint64_t norms = 2 * (uint64_t)c->hidden_size;
    uint64_t ffn = mlp(c, c->intermediate_size);
    if (model_config_is_moe(c, index)) {
        uint64_t gate = c->n_routed_experts * ((uint64_t)c->hidden_size + 1);
        ffn = gate + (routed + c->n_shared_experts) * expert(c);
    }
    return attention(c) + norms + ffn;
}

static uint64_t model(const struct model_config *c, uint64_t routed)
{
    uint64_t table = (uint64_t)c->vocab_size * c->hidden_size;
    uint64_t sum = c->tie_word_embeddings ? table : 2 * table;
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        sum += layer(c, i, routed);
    }
    return sum + c->hidden_size;
}

uint64_t model_config_params_total(const struct model_config *c)
{
    return model(c, c->n_routed_experts);
}

uint64_t model_config_params_active(const struct model_config *c)
{
    return model(c, c->num_experts_per_tok);
}

uint64_t model_config_params_mtp(const struct model_config *c)
{
    uint64_t hidden = c->hidden_size;
    uint64_t sum = 0;
    for (uint32_t k = 0; k < c->num_nextn_predict_layers; k++) {
        /* the projection of [embedding, hidden] and the norms of both and of the head; embedding
         * and head are the model's */
        sum += layer(c, c->num_hidden_layers + k, c->n_routed_experts) + 2 * hidden * hidden +
               3 * hidden;
    }
    return sum;
}
