/* A Hugging Face config.json of a DeepseekV3 model. Pure: reads no file. */
#ifndef PROTO_MODEL_CONFIG_H
#define PROTO_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/rope_scaling.h"

#define MODEL_CONFIG_POSITIONS_MAX (1u << 30)

struct model_config {
    uint32_t vocab_size, hidden_size;
    uint32_t intermediate_size;     /* of the dense layers */
    uint32_t moe_intermediate_size; /* of one expert */
    uint32_t num_hidden_layers;
    uint32_t first_k_dense_replace; /* the first layers, which are dense */
    uint32_t num_attention_heads;
    uint32_t q_lora_rank; /* 0: null in the file, a plain q_proj */
    uint32_t kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    uint32_t n_routed_experts; /* 0: a dense model */
    uint32_t n_shared_experts, num_experts_per_tok, n_group, topk_group;
    bool norm_topk_prob;
    double routed_scaling_factor;
    double rms_norm_eps;
    double rope_theta;
    uint32_t max_position_embeddings;
    uint32_t num_nextn_predict_layers; /* MTP depth */
    double initializer_range;
    struct rope_scaling rope;
    bool tie_word_embeddings;
    int64_t bos_token_id, eos_token_id; /* -1: none */
};

/* name: for messages. Missing keys take the published defaults of DeepseekV3Config where it has
 * one; impossible values are refused with the key, the value and what is allowed. */
int model_config_parse(struct model_config *c, const char *json, size_t json_bytes,
                       const char *name, struct err *err);
/* A config.json that transformers loads. Caller frees. */
char *model_config_to_json(const struct model_config *c);

static inline bool model_config_is_moe(const struct model_config *c, uint32_t layer)
{
    return c->n_routed_experts > 0 && layer >= c->first_k_dense_replace;
}
/* Exact parameter counts, without the MTP modules; active: one token's, embedding and head
 * included. */
uint64_t model_config_params_total(const struct model_config *c);
uint64_t model_config_params_active(const struct model_config *c);
uint64_t model_config_params_mtp(const struct model_config *c);

#endif
