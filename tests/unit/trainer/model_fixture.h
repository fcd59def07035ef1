/* Random small models for tests: shapes, weights, biases and tokens from one seed. */
#ifndef TESTS_UNIT_TRAINER_MODEL_FIXTURE_H
#define TESTS_UNIT_TRAINER_MODEL_FIXTURE_H

#include <math.h>
#include <stdlib.h>

#include "tests/unit/random.h"
#include "trainer/model.h"
#include "trainer/rng.h"

static inline uint32_t pick(uint32_t low, uint32_t high)
{
    return low + (uint32_t)random_below(high - low + 1);
}

static inline double pick_real(double low, double high)
{
    return low + (high - low) * (double)(random_next() >> 11) * 0x1p-53;
}

static inline struct model_config fixture_config(void)
{
    static const uint32_t group_counts[] = {1, 2, 4, 8};
    uint32_t groups = group_counts[pick(0, 3)], in_group = pick(2, 3);
    uint32_t top_groups = pick(1, groups), most = in_group * top_groups;
    struct model_config c = {
        .vocab_size = pick(5, 23),
        .hidden_size = pick(8, 18),
        .intermediate_size = pick(5, 17),
        .moe_intermediate_size = pick(3, 9),
        .num_hidden_layers = pick(1, 3),
        .first_k_dense_replace = pick(0, 2),
        .num_attention_heads = pick(1, 3),
        .q_lora_rank = pick(0, 1) * pick(5, 11),
        .kv_lora_rank = pick(5, 11),
        .qk_nope_head_dim = pick(2, 5),
        .qk_rope_head_dim = 2 * pick(1, 3),
        .v_head_dim = pick(2, 6),
        .n_routed_experts = groups * in_group,
        .n_shared_experts = pick(0, 2),
        .num_experts_per_tok = pick(1, most < 4 ? most : 4),
        .n_group = groups,
        .topk_group = top_groups,
        .norm_topk_prob = pick(0, 3) > 0,
        .routed_scaling_factor = pick_real(0.5, 2.5),
        .rms_norm_eps = pick(0, 1) ? 1e-6 : 1e-3,
        .rope_theta = 10000,
        .max_position_embeddings = 4096,
        .num_nextn_predict_layers = pick(0, 2),
        .tie_word_embeddings = pick(0, 4) == 0,
        .bos_token_id = -1,
        .eos_token_id = -1,
    };
    c.rope.yarn = pick(0, 1) != 0;
    c.rope.factor = pick_real(1.5, 40);
    c.rope.beta_fast = 32;
    c.rope.beta_slow = 1;
    c.rope.mscale = pick(0, 2) ? 1.0 : 0.707;
    c.rope.mscale_all_dim = pick(0, 3) ? 1.0 : 0.0;
    c.rope.original_max_position_embeddings = 1u << pick(3, 12);
    return c;
}

/* One rank alone. */
static inline struct mesh fixture_mesh(void)
{
    return (struct mesh){.pipeline = 1, .expert = 1, .data = 1, .world = 1};
}

/* Values in the range of a trained model's: matrices of gain about 1, norms about 1, biases that
 * make some biased scores negative. */
static inline void fixture_fill(struct model *m, uint64_t seed)
{
    size_t count;
    struct param *p = model_params(m, &count);
    for (size_t i = 0; i < count; i++) {
        double std = p[i].is_vector ? 0.3 : 1 / sqrt((double)p[i].cols);
        rng_normal(seed, rng_stream(p[i].name), 0, p[i].count, std, p[i].weight);
        for (size_t j = 0; p[i].is_vector && j < p[i].count; j++) {
            p[i].weight[j] += 1;
        }
    }
    struct router *router = model_routers(m, &count);
    for (size_t i = 0; i < count; i++) {
        rng_normal(seed, rng_stream(router[i].name), 0, router[i].experts, 0.3, router[i].bias);
        for (uint32_t e = 0; e < router[i].experts; e++) {
            router[i].bias[e] -= 0.4f;
        }
    }
    model_refresh(m);
}

static inline int32_t *fixture_tokens(const struct model_options *o)
{
    size_t count = (size_t)o->micro_batch * (o->sequence_length + 1);
    int32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (int32_t)pick(0, o->config->vocab_size - 1);
    }
    return tokens;
}

#endif
