/* One decoder layer over the cache. Inside the decoder only. */
#ifndef TRAINER_DECODE_LAYER_H
#define TRAINER_DECODE_LAYER_H

#include <stdbool.h>

#include "trainer/decode.h"

struct decode_ffn {
    const float *gate, *up, *down;
    size_t width;
};
struct decode_layer {
    const float *input_norm, *post_norm;
    const float *q_a, *q_norm, *q_b; /* q_a alone is the plain q_proj */
    const float *kv_a, *kv_norm, *kv_b, *o;
    bool is_moe;
    struct decode_ffn ffn; /* dense, or the shared experts; width 0: none */
    const float *gate, *bias;
    struct decode_ffn *expert; /* owned */
    float *cache;              /* owned; [positions][kv_lora_rank + qk_rope_head_dim] */
};
/* What layers use one after the other; DECODE_ROWS rows each. */
struct decode_scratch {
    const struct model_config *config;
    const struct op_table *op;
    const float *rope; /* [positions][qk_rope_head_dim] */
    float softmax_scale;
    size_t positions;
    struct mat normed, latent, q, query, out, y;     /* attention */
    struct mat gate_up, act, logits, scores;         /* FFN */
    struct mat slot_x, slot_gate_up, slot_act, slot; /* [rows * top_k]: chosen experts, in order */
    int32_t *expert;                                 /* [rows * top_k] */
    size_t *slot_of;                                 /* the same: where its result is */
    struct product *products;                        /* of all chosen experts */
    float *weight;
    float *rstd, *probability; /* probability: [workers][positions] */
    size_t workers;
};

/* y = x w^T, row by row the same whatever the number of rows. */
struct product {
    struct mat x;
    const float *w;
    struct mat y;
};
/* Several that do not depend on each other, shared out among the threads at once. */
void decode_products(const struct product *product, size_t count);
void decode_linear(struct mat x, const float *w, struct mat y);

/* x: rows at positions first, first + 1, ...; in place. */
void decode_layer_forward(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                          size_t first);
/* Leaves in the cache what decode_layer_forward would, and computes nothing else. */
void decode_layer_remember(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                           size_t first);
void decode_attention(struct decode_layer *l, struct decode_scratch *s, struct mat x, size_t first,
                      struct mat y);
/* The cache entries of rows x. */
void decode_attention_remember(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                               size_t first);

#endif
