#include <math.h>
#include <string.h>

#include "trainer/cpu/cpu.h"
#include "trainer/cpu/pool.h"
#include "trainer/decode_layer.h"

#define LATENT_EPS 1e-6f /* as in layer_mla.c */

/* ---- attention of one row and head */

struct attention_job {
    const struct decode_layer *layer;
    const struct decode_scratch *s;
    size_t rows, first;
};

static void softmax(float *x, size_t n)
{
    float most = x[0];
    for (size_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] -= most;
    }
    cpu_kernels->exp(x, x, n);
    float share = (float)(1 / cpu_kernels->sum(x, n));
    for (size_t i = 0; i < n; i++) {
        x[i] *= share;
    }
}

static void attend(void *ctx, size_t task, size_t worker)
{
    const struct attention_job *j = ctx;
    const struct decode_scratch *s = j->s;
    const struct model_config *c = s->config;
    size_t heads = c->num_attention_heads, row = task / heads, head = task % heads;
    size_t rank = c->kv_lora_rank, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim;
    size_t width = rank + rope, count = j->first + row + 1;
    const float *up = j->layer->kv_b + head * (nope + c->v_head_dim) * rank;
    const float *q = s->q.data + row * s->q.ld + head * (nope + rope);
    /* [W_UK^T q_nope | q_rope]; later the sum of latents, in its first part */
    float *query = s->query.data + row * s->query.ld + head * width;
    float *probability = s->probability + worker * s->positions;
    cpu_kernels->weighted_sum(q, nope, up, rank, rank, query);
    memcpy(query + rank, q + nope, rope * sizeof *query);
    const float *cache = j->layer->cache;
    cpu_kernels->products(query, width, 1, cache, width, count, probability, count);
    for (size_t t = 0; t < count; t++) {
        probability[t] *= s->softmax_scale;
    }
    softmax(probability, count);
    cpu_kernels->weighted_sum(probability, count, cache, width, rank, query);
    float *out = s->out.data + row * s->out.ld + head * c->v_head_dim;
    cpu_kernels->products(query, width, 1, up + nope * rank, rank, c->v_head_dim, out, s->out.ld);
}

/* ---- */

/* What the queries are made of: the latent, or they themselves. */
static struct mat query_target(const struct decode_layer *l, const struct decode_scratch *s,
                               size_t rows, struct mat q)
{
    return l->q_b != NULL ? mat_of(s->latent.data, rows, s->config->q_lora_rank) : q;
}

static struct mat entries(const struct decode_layer *l, const struct model_config *c, size_t first,
                          size_t rows)
{
    size_t width = c->kv_lora_rank + c->qk_rope_head_dim;
    return mat_of(l->cache + first * width, rows, width);
}

/* Of new entries as kv_a gives them: the latent normed, the key turned. */
static void finish_entries(const struct decode_layer *l, struct decode_scratch *s, size_t first,
                           struct mat entry)
{
    size_t rank = s->config->kv_lora_rank, rope = s->config->qk_rope_head_dim;
    struct mat latent = mat_cols(entry, 0, rank), key = mat_cols(entry, rank, rope);
    s->op->rmsnorm(latent, l->kv_norm, LATENT_EPS, latent, s->rstd);
    s->op->rope((struct op_heads){key.data, key.ld, 0}, entry.rows, entry.rows, 1, rope,
                s->rope + first * rope, false);
}

void decode_attention_remember(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                               size_t first)
{
    struct mat entry = entries(l, s->config, first, x.rows);
    decode_linear(x, l->kv_a, entry);
    finish_entries(l, s, first, entry);
}

void decode_attention(struct decode_layer *l, struct decode_scratch *s, struct mat x, size_t first,
                      struct mat y)
{
    const struct model_config *c = s->config;
    size_t nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim;
    struct mat q = mat_rows(s->q, 0, x.rows), entry = entries(l, c, first, x.rows);
    struct mat latent = query_target(l, s, x.rows, q);
    const struct product both[2] = {{x, l->q_a, latent}, {x, l->kv_a, entry}};
    decode_products(both, 2);
    if (l->q_b != NULL) {
        s->op->rmsnorm(latent, l->q_norm, LATENT_EPS, latent, s->rstd);
        decode_linear(latent, l->q_b, q);
    }
    finish_entries(l, s, first, entry);
    s->op->rope((struct op_heads){q.data + nope, q.ld, nope + rope}, x.rows, x.rows,
                c->num_attention_heads, rope, s->rope + first * rope, false);
    struct attention_job job = {l, s, x.rows, first};
    pool_run(attend, &job, x.rows * c->num_attention_heads);
    decode_linear(mat_rows(s->out, 0, x.rows), l->o, y);
}
