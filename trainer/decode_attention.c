#include <math.h>
#include <string.h>

#include "trainer/cpu/cpu.h"
#include "trainer/cpu/pool.h"
#include "trainer/decode_layer.h"

#define LATENT_EPS    1e-6f /* as in layer_mla.c */
#define LINEAR_SHARES 4     /* of a product, for each thread */

/* ---- products */

struct linear_job {
    struct mat x, y;
    const float *w;
    size_t shares;
};

static void linear_share(void *ctx, size_t task, size_t worker)
{
    (void)worker;
    const struct linear_job *j = ctx;
    size_t from = j->y.cols * task / j->shares, to = j->y.cols * (task + 1) / j->shares;
    for (size_t n = from; n < to; n++) {
        const float *w = j->w + n * j->x.cols;
        size_t r = 0;
        for (; r + 2 <= j->x.rows; r += 2) {
            const float *x = j->x.data + r * j->x.ld;
            float y[2];
            cpu_kernels->dot_two(x, x + j->x.ld, w, j->x.cols, y);
            j->y.data[r * j->y.ld + n] = y[0];
            j->y.data[(r + 1) * j->y.ld + n] = y[1];
        }
        if (r < j->x.rows) {
            j->y.data[r * j->y.ld + n] = cpu_kernels->dot(j->x.data + r * j->x.ld, w, j->x.cols);
        }
    }
}

void decode_linear(struct mat x, const float *w, struct mat y)
{
    size_t threads = (size_t)pool_threads();
    struct linear_job job = {x, y, w, threads > 1 ? threads * LINEAR_SHARES : 1};
    pool_run(linear_share, &job, job.shares);
}

/* ---- attention of one row and head */

struct attention_job {
    const struct decode_layer *layer;
    const struct decode_scratch *s;
    size_t rows, first;
};

static void softmax(float *x, size_t n)
{
    float most = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - most);
        sum += x[i];
    }
    for (size_t i = 0; i < n; i++) {
        x[i] /= sum;
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
    memset(query, 0, rank * sizeof *query);
    for (size_t i = 0; i < nope; i++) {
        for (size_t k = 0; k < rank; k++) {
            query[k] += q[i] * up[i * rank + k];
        }
    }
    memcpy(query + rank, q + nope, rope * sizeof *query);
    for (size_t t = 0; t < count; t++) {
        probability[t] =
            s->softmax_scale * cpu_kernels->dot(query, j->layer->cache + t * width, width);
    }
    softmax(probability, count);
    memset(query, 0, rank * sizeof *query);
    for (size_t t = 0; t < count; t++) {
        const float *latent = j->layer->cache + t * width;
        for (size_t k = 0; k < rank; k++) {
            query[k] += probability[t] * latent[k];
        }
    }
    float *out = s->out.data + row * s->out.ld + head * c->v_head_dim;
    for (size_t i = 0; i < c->v_head_dim; i++) {
        out[i] = cpu_kernels->dot(query, up + (nope + i) * rank, rank);
    }
}

/* ---- */

static void queries(const struct decode_layer *l, const struct decode_scratch *s, struct mat x,
                    struct mat q)
{
    if (l->q_b == NULL) {
        decode_linear(x, l->q_a, q);
        return;
    }
    struct mat latent = mat_of(s->latent.data, x.rows, s->config->q_lora_rank);
    decode_linear(x, l->q_a, latent);
    s->op->rmsnorm(latent, l->q_norm, LATENT_EPS, latent, s->rstd);
    decode_linear(latent, l->q_b, q);
}

void decode_attention(struct decode_layer *l, struct decode_scratch *s, struct mat x, size_t first,
                      struct mat y)
{
    const struct model_config *c = s->config;
    size_t rank = c->kv_lora_rank, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim;
    const float *table = s->rope + first * rope;
    struct mat q = mat_rows(s->q, 0, x.rows);
    struct mat entry = mat_of(l->cache + first * (rank + rope), x.rows, rank + rope);
    struct mat latent = mat_cols(entry, 0, rank), key = mat_cols(entry, rank, rope);
    queries(l, s, x, q);
    decode_linear(x, l->kv_a, entry);
    s->op->rmsnorm(latent, l->kv_norm, LATENT_EPS, latent, s->rstd);
    s->op->rope((struct op_heads){key.data, key.ld, 0}, x.rows, x.rows, 1, rope, table, false);
    s->op->rope((struct op_heads){q.data + nope, q.ld, nope + rope}, x.rows, x.rows,
                c->num_attention_heads, rope, table, false);
    struct attention_job job = {l, s, x.rows, first};
    pool_run(attend, &job, x.rows * c->num_attention_heads);
    decode_linear(mat_rows(s->out, 0, x.rows), l->o, y);
}
