#include "trainer/decode.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/cpu/pool.h"
#include "trainer/decode_layer.h"
#include "trainer/rope.h"

struct decoder {
    struct model_config config;
    const struct op_table *op;
    struct decode_scratch s;
    float *memory, *rope; /* owned */
    const float *embed, *norm, *head;
    struct decode_layer *layer; /* owned; and the MTP module's, when there is one */
    uint32_t layers;
    const float *enorm, *hnorm, *eh, *mtp_norm;
    size_t positions, length, mtp_length;
    struct mat x, hidden, joined, mtp;
};

/* ---- weights by name */

static const float *find(struct model *m, const char *prefix, const char *name)
{
    char wanted[sizeof((struct param *)0)->name];
    size_t count;
    struct param *p = model_params(m, &count);
    snprintf(wanted, sizeof wanted, "%s%s", prefix, name);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(p[i].name, wanted) == 0) {
            return p[i].weight;
        }
    }
    return NULL;
}

static void find_ffn(struct decode_ffn *f, struct model *m, const char *prefix, size_t width)
{
    *f = (struct decode_ffn){find(m, prefix, "gate_proj.weight"), find(m, prefix, "up_proj.weight"),
                             find(m, prefix, "down_proj.weight"), width};
}

static void find_moe(struct decode_layer *l, struct model *m, const struct model_config *c,
                     const char *prefix)
{
    char name[sizeof((struct param *)0)->name];
    size_t routers;
    struct router *router = model_routers(m, &routers);
    l->gate = find(m, prefix, "mlp.gate.weight");
    snprintf(name, sizeof name, "%smlp.gate.e_score_correction_bias", prefix);
    for (size_t i = 0; i < routers; i++) {
        l->bias = strcmp(router[i].name, name) == 0 ? router[i].bias : l->bias;
    }
    if (c->n_shared_experts > 0) {
        snprintf(name, sizeof name, "%smlp.shared_experts.", prefix);
        find_ffn(&l->ffn, m, name, (size_t)c->moe_intermediate_size * c->n_shared_experts);
    }
    l->expert = mem_alloc_array(c->n_routed_experts, sizeof *l->expert);
    for (uint32_t e = 0; e < c->n_routed_experts; e++) {
        snprintf(name, sizeof name, "%smlp.experts.%u.", prefix, e);
        find_ffn(&l->expert[e], m, name, c->moe_intermediate_size);
    }
}

static void find_layer(struct decode_layer *l, struct model *m, const struct model_config *c,
                       uint32_t index)
{
    char prefix[64];
    char name[96];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", index);
    l->input_norm = find(m, prefix, "input_layernorm.weight");
    l->post_norm = find(m, prefix, "post_attention_layernorm.weight");
    snprintf(name, sizeof name, "%sself_attn.", prefix);
    l->q_a = find(m, name, c->q_lora_rank > 0 ? "q_a_proj.weight" : "q_proj.weight");
    l->q_norm = find(m, name, "q_a_layernorm.weight");
    l->q_b = find(m, name, "q_b_proj.weight");
    l->kv_a = find(m, name, "kv_a_proj_with_mqa.weight");
    l->kv_norm = find(m, name, "kv_a_layernorm.weight");
    l->kv_b = find(m, name, "kv_b_proj.weight");
    l->o = find(m, name, "o_proj.weight");
    l->is_moe = model_config_is_moe(c, index);
    if (l->is_moe) {
        find_moe(l, m, c, prefix);
    } else {
        snprintf(name, sizeof name, "%smlp.", prefix);
        find_ffn(&l->ffn, m, name, c->intermediate_size);
    }
}

static void find_all(struct decoder *d, struct model *m)
{
    const struct model_config *c = &d->config;
    char prefix[64];
    d->embed = find(m, "model.", "embed_tokens.weight");
    d->norm = find(m, "model.", "norm.weight");
    d->head = c->tie_word_embeddings ? d->embed : find(m, "", "lm_head.weight");
    for (uint32_t l = 0; l < d->layers; l++) {
        find_layer(&d->layer[l], m, c, l);
        d->layer[l].cache =
            mem_alloc_array(d->positions, (c->kv_lora_rank + c->qk_rope_head_dim) * sizeof(float));
    }
    snprintf(prefix, sizeof prefix, "model.layers.%u.", c->num_hidden_layers);
    d->enorm = find(m, prefix, "enorm.weight");
    d->hnorm = find(m, prefix, "hnorm.weight");
    d->eh = find(m, prefix, "eh_proj.weight");
    d->mtp_norm = find(m, prefix, "shared_head.norm.weight");
}

/* ---- memory */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Runs twice: to count, and with memory. */
static float *take(float *memory, size_t *used, size_t count)
{
    float *p = memory != NULL ? memory + *used : NULL;
    *used += count;
    return p;
}

static struct mat take_mat(float *memory, size_t *used, size_t rows, size_t cols)
{
    return mat_of(take(memory, used, rows * cols), rows, cols);
}

static size_t lay_out(struct decoder *d, float *memory)
{
    const struct model_config *c = &d->config;
    struct decode_scratch *s = &d->s;
    size_t used = 0, rows = DECODE_ROWS, hidden = c->hidden_size, heads = c->num_attention_heads;
    size_t shared = (size_t)c->moe_intermediate_size * larger(c->n_shared_experts, 1);
    size_t width = larger(c->intermediate_size, c->n_routed_experts > 0 ? shared : 0);
    size_t top_k = c->n_routed_experts > 0 ? c->num_experts_per_tok : 0;
    d->x = take_mat(memory, &used, rows, hidden);
    d->hidden = take_mat(memory, &used, rows, hidden);
    d->mtp = take_mat(memory, &used, rows, hidden);
    d->joined = take_mat(memory, &used, rows, 2 * hidden);
    s->normed = take_mat(memory, &used, rows, hidden);
    s->latent = take_mat(memory, &used, rows, c->q_lora_rank);
    s->q = take_mat(memory, &used, rows, heads * (c->qk_nope_head_dim + c->qk_rope_head_dim));
    s->query = take_mat(memory, &used, rows, heads * (c->kv_lora_rank + c->qk_rope_head_dim));
    s->out = take_mat(memory, &used, rows, heads * c->v_head_dim);
    s->y = take_mat(memory, &used, rows, hidden);
    s->gate_up = take_mat(memory, &used, rows, 2 * width);
    s->act = take_mat(memory, &used, rows, width);
    s->logits = take_mat(memory, &used, rows, c->n_routed_experts);
    s->scores = take_mat(memory, &used, rows, c->n_routed_experts);
    s->slot_x = take_mat(memory, &used, rows * top_k, hidden);
    s->slot_gate_up = take_mat(memory, &used, rows * top_k, 2 * (size_t)c->moe_intermediate_size);
    s->slot_act = take_mat(memory, &used, rows * top_k, c->moe_intermediate_size);
    s->slot = take_mat(memory, &used, rows * top_k, hidden);
    s->weight = take(memory, &used, rows * top_k);
    s->rstd = take(memory, &used, rows);
    s->probability = take(memory, &used, s->workers * d->positions);
    return used;
}

struct decoder *decoder_create(struct model *model, const struct model_config *config,
                               const struct op_table *op, size_t positions)
{
    struct decoder *d = mem_alloc(sizeof *d);
    d->config = *config;
    d->op = op;
    d->positions = positions;
    d->layers = config->num_hidden_layers + (config->num_nextn_predict_layers > 0 ? 1 : 0);
    d->layer = mem_alloc_array(d->layers, sizeof *d->layer);
    d->rope = mem_alloc_array(positions * config->qk_rope_head_dim, sizeof *d->rope);
    rope_table(config, positions, d->rope);
    d->s = (struct decode_scratch){.config = &d->config,
                                   .op = op,
                                   .rope = d->rope,
                                   .softmax_scale = (float)rope_softmax_scale(config),
                                   .positions = positions,
                                   .workers = (size_t)pool_threads()};
    d->memory = mem_alloc_array(lay_out(d, NULL), sizeof *d->memory);
    lay_out(d, d->memory);
    size_t pairs = (size_t)DECODE_ROWS * config->num_experts_per_tok;
    d->s.expert = mem_alloc_array(pairs + 1, sizeof *d->s.expert);
    d->s.slot_of = mem_alloc_array(pairs + 1, sizeof *d->s.slot_of);
    d->s.products = mem_alloc_array(3 * (pairs + 1), sizeof *d->s.products);
    find_all(d, model);
    return d;
}

void decoder_destroy(struct decoder *d)
{
    if (d == NULL) {
        return;
    }
    for (uint32_t l = 0; l < d->layers; l++) {
        free(d->layer[l].expert);
        free(d->layer[l].cache);
    }
    free(d->layer);
    free(d->s.expert);
    free(d->s.slot_of);
    free(d->s.products);
    free(d->memory);
    free(d->rope);
    free(d);
}

/* ---- use */

void decoder_forward(struct decoder *d, const int32_t *tokens, size_t count)
{
    assert(count >= 1 && count <= DECODE_ROWS && count <= d->positions - d->length);
    struct mat x = mat_rows(d->x, 0, count);
    d->op->embed(tokens, d->embed, x);
    for (uint32_t l = 0; l < d->config.num_hidden_layers; l++) {
        decode_layer_forward(&d->layer[l], &d->s, x, d->length);
    }
    d->op->rmsnorm(x, d->norm, (float)d->config.rms_norm_eps, mat_rows(d->hidden, 0, count),
                   d->s.rstd);
    d->length += count;
}

void decoder_logits(struct decoder *d, size_t first, size_t count, float *out)
{
    decode_linear(mat_rows(d->hidden, first, count), d->head,
                  mat_of(out, count, d->config.vocab_size));
}

size_t decoder_length(const struct decoder *d)
{
    return d->length;
}

void decoder_truncate(struct decoder *d, size_t length)
{
    assert(length <= d->length);
    d->length = length;
    d->mtp_length = d->mtp_length < length ? d->mtp_length : length;
}

/* What the module's layer sees of rows of the last pass, in d->mtp. */
static struct mat module_input(struct decoder *d, const int32_t *next, size_t count)
{
    size_t hidden = d->hidden.cols;
    float eps = (float)d->config.rms_norm_eps;
    struct mat x = mat_rows(d->mtp, 0, count), joined = mat_rows(d->joined, 0, count);
    assert(d->eh != NULL && count >= 1 && d->mtp_length + count <= d->positions);
    d->op->embed(next, d->embed, x);
    d->op->rmsnorm(x, d->enorm, eps, mat_cols(joined, 0, hidden), d->s.rstd);
    d->op->rmsnorm(mat_rows(d->hidden, 0, count), d->hnorm, eps, mat_cols(joined, hidden, hidden),
                   d->s.rstd);
    decode_linear(joined, d->eh, x);
    return x;
}

void decoder_draft(struct decoder *d, const int32_t *next, size_t count, float *logits)
{
    struct decode_layer *layer = &d->layer[d->config.num_hidden_layers];
    struct mat x = module_input(d, next, count), last = mat_rows(x, count - 1, 1);
    /* Only the last row's guess is asked for; the module has one layer, so of the others it needs
     * no more than what is in the cache. */
    if (count > 1) {
        decode_layer_remember(layer, &d->s, mat_rows(x, 0, count - 1), d->mtp_length);
    }
    decode_layer_forward(layer, &d->s, last, d->mtp_length + count - 1);
    d->mtp_length += count;
    d->op->rmsnorm(last, d->mtp_norm, (float)d->config.rms_norm_eps, last, d->s.rstd);
    decode_linear(last, d->head, mat_of(logits, 1, d->config.vocab_size));
}

void decoder_skip_draft(struct decoder *d, const int32_t *next, size_t count)
{
    struct mat x = module_input(d, next, count);
    decode_layer_remember(&d->layer[d->config.num_hidden_layers], &d->s, x, d->mtp_length);
    d->mtp_length += count;
}
