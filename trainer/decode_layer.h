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
    struct mat normed, latent, q, query, out, y;   /* attention */
    struct mat gate_up, act, logits, scores, x_in; /* FFN */
    struct mat slot;                               /* [rows * top_k]: outputs of chosen experts */
    int32_t *expert;
    float *weight;
    float *rstd, *probability; /* probability: [workers][positions] */
    size_t workers;
};

/* y = x w^T, row by row the same whatever the number of rows. */
void decode_linear(struct mat x, const float *w, struct mat y);
/* x: rows at positions first, first + 1, ...; in place. */
void decode_layer_forward(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                          size_t first);
void decode_attention(struct decode_layer *l, struct decode_scratch *s, struct mat x, size_t first,
                      struct mat y);

#endif
