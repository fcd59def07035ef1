/* The whole model: embedding, decoder layers, head, MTP modules, and the order in which they run
 * forward and backward. */
#include "trainer/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/layer.h"
#include "trainer/model_check.h"
#include "trainer/rope.h"

struct model {
    struct model_options options;
    struct model_config config;
    struct ctx ctx;
    struct shape shape;
    struct params params;
    struct arena keep, scratch, host;
    struct router *router;
    size_t router_count;

    struct linear embed, lm_head;
    struct vector norm;
    struct block *block;
    struct mtp *mtp;
    struct head head;
    /* keep */
    int32_t *token, *target;
    struct mat last, hidden; /* output of the layers, and normed */
    float *rstd;
    struct mat d, dhidden; /* gradients along the residual stream, and of hidden */
    /* host */
    int32_t *host_token;
};

/* ---- building */

static struct router *router_of(struct model *m, uint32_t layer, size_t *next)
{
    return model_config_is_moe(&m->config, layer) ? &m->router[(*next)++] : NULL;
}

/* Runs twice: to count, and with memory. */
static void build(struct model *m)
{
    const struct model_config *c = &m->config;
    struct params *p = &m->params;
    size_t rows = m->shape.rows, hidden = c->hidden_size, next_router = 0;
    struct builder b = {
        .config = c,
        .mesh = m->options.mesh,
        .params = p,
        .keep = &m->keep,
        .scratch = &m->scratch,
        .host = &m->host,
        .precision = m->options.precision,
        .op = m->options.op,
        .shape = m->shape,
    };
    params_begin(p);
    m->keep.used = m->scratch.used = m->host.used = 0;
    m->token = arena_take(&m->keep, rows * sizeof *m->token);
    m->target = arena_take(&m->keep, rows * sizeof *m->target);
    m->host_token = arena_take(&m->host, rows * sizeof *m->host_token);
    m->ctx.rope = arena_floats(&m->keep, m->shape.seq * c->qk_rope_head_dim);

    m->embed = m->lm_head = (struct linear){0};
    params_linear(p, &m->embed, LINEAR_HIGH, -1, "model.", "embed_tokens.weight", c->vocab_size,
                  c->hidden_size);
    for (uint32_t l = 0; l < c->num_hidden_layers; l++) {
        block_build(&m->block[l], &b, l, router_of(m, l, &next_router));
    }
    params_vector(p, &m->norm, "model.", "norm.weight", c->hidden_size);
    params_align(p);
    if (c->tie_word_embeddings) {
        m->lm_head = m->embed;
    } else {
        params_linear(p, &m->lm_head, LINEAR_HIGH, -1, "", "lm_head.weight", c->vocab_size,
                      c->hidden_size);
    }
    for (uint32_t k = 0; k < c->num_nextn_predict_layers; k++) {
        mtp_build(&m->mtp[k], &b, k + 1, router_of(m, c->num_hidden_layers + k, &next_router));
    }
    params_align(p);
    head_build(&m->head, &b, &m->lm_head);
    m->last = arena_mat(&m->keep, rows, hidden);
    m->hidden = arena_mat(&m->keep, rows, hidden);
    m->rstd = arena_floats(&m->keep, rows);
    m->d = arena_mat(&m->keep, rows, hidden);
    m->dhidden = arena_mat(&m->keep, rows, hidden);
    m->ctx.operand_dy = arena_floats(&m->keep, b.operand_dy);
    m->ctx.operand_x = arena_floats(&m->keep, b.operand_x);
}

static void create_routers(struct model *m)
{
    const struct model_config *c = &m->config;
    uint32_t layers = c->num_hidden_layers + c->num_nextn_predict_layers;
    m->router = mem_alloc_array(layers, sizeof *m->router);
    for (uint32_t l = 0; l < layers; l++) {
        if (!model_config_is_moe(c, l)) {
            continue;
        }
        struct router *r = &m->router[m->router_count++];
        snprintf(r->name, sizeof r->name, "model.layers.%u.mlp.gate.e_score_correction_bias", l);
        r->experts = c->n_routed_experts;
        r->bias = mem_alloc_array(r->experts, sizeof *r->bias);
        r->load = mem_alloc_array(r->experts, sizeof *r->load);
    }
}

static void fill_rope(struct model *m)
{
    size_t count = m->shape.seq * m->config.qk_rope_head_dim;
    float *table = mem_alloc_array(count, sizeof *table);
    rope_table(&m->config, m->shape.seq, table);
    m->options.op->copy_from_host((float *)(uintptr_t)m->ctx.rope, table, count * sizeof *table);
    free(table);
}

int model_create(struct model **model, const struct model_options *options, struct err *err)
{
    const struct op_table *op = options->op;
    TRY(model_check(options, err));
    struct model *m = mem_alloc(sizeof *m);
    m->options = *options;
    m->config = *options->config;
    m->options.config = &m->config;
    m->shape = (struct shape){options->micro_batch, options->sequence_length,
                              (size_t)options->micro_batch * options->sequence_length};
    m->params.op = op;
    m->params.precision = options->precision;
    m->ctx = (struct ctx){
        .op = op,
        .config = &m->config,
        .precision = options->precision,
        .comm = options->expert_comm,
        .balance_scale = (float)(options->balance_alpha * options->sequence_length),
        .softmax_scale = (float)rope_softmax_scale(&m->config),
    };
    m->block = mem_alloc_array(m->config.num_hidden_layers, sizeof *m->block);
    m->mtp = mem_alloc_array(m->config.num_nextn_predict_layers, sizeof *m->mtp);
    create_routers(m);
    build(m);
    m->keep.base = op->alloc(m->keep.size);
    m->scratch.base = op->alloc(m->scratch.size);
    m->host.base = mem_alloc(m->host.size);
    params_allocate(&m->params);
    build(m);
    fill_rope(m);
    *model = m;
    return 0;
}

void model_destroy(struct model *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->router_count; i++) {
        free(m->router[i].bias);
        free(m->router[i].load);
    }
    free(m->router);
    free(m->block);
    free(m->mtp);
    m->options.op->release(m->keep.base);
    m->options.op->release(m->scratch.base);
    free(m->host.base);
    params_fini(&m->params);
    free(m);
}

/* ---- what others may touch */

struct param *model_params(struct model *m, size_t *count)
{
    *count = m->params.count;
    return m->params.item;
}

struct param_range model_param_range(struct model *m, bool experts)
{
    const struct param_memory *memory = experts ? &m->params.expert : &m->params.dense;
    return (struct param_range){(float *)(void *)memory->weight.base,
                                (float *)(void *)memory->grad.base,
                                memory->weight.used / sizeof(float)};
}

struct router *model_routers(struct model *m, size_t *count)
{
    *count = m->router_count;
    return m->router;
}

void model_router_reset(struct model *m)
{
    for (size_t i = 0; i < m->router_count; i++) {
        memset(m->router[i].load, 0, m->router[i].experts * sizeof *m->router[i].load);
    }
}

size_t model_bytes(const struct model *m)
{
    const struct params *p = &m->params;
    return m->keep.size + m->scratch.size + m->host.size + p->dense.weight.size +
           p->dense.grad.size + p->dense.low.size + p->expert.weight.size + p->expert.grad.size +
           p->expert.low.size;
}

void model_init(struct model *m)
{
    params_init_weights(&m->params, m->options.seed, m->options.init_std);
    model_refresh(m);
}

void model_refresh(struct model *m)
{
    params_refresh(&m->params);
}

void model_zero_grad(struct model *m)
{
    for (int experts = 0; experts <= 1; experts++) {
        struct param_range range = model_param_range(m, experts != 0);
        m->options.op->zero(mat_of(range.grad, 1, range.count));
    }
}

/* ---- tokens */

static int check_tokens(const struct model *m, const int32_t *tokens, struct err *err)
{
    size_t row = m->shape.seq + 1;
    for (size_t i = 0; i < m->shape.batch * row; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->config.vocab_size) {
            return err_set(
                err, ERR_DATA,
                "token %d at position %zu of sequence %zu is outside the vocabulary of %u "
                "(pack the data with this model's tokenizer)",
                tokens[i], i % row, i / row, m->config.vocab_size);
        }
    }
    return 0;
}

/* out[b, i] = tokens[b, i + shift], seq of them a row */
static void load_shifted(struct model *m, const int32_t *tokens, size_t shift, size_t seq,
                         int32_t *out)
{
    for (size_t b = 0; b < m->shape.batch; b++) {
        memcpy(m->host_token + b * seq, tokens + b * (m->shape.seq + 1) + shift,
               seq * sizeof *tokens);
    }
    m->options.op->copy_from_host(out, m->host_token, m->shape.batch * seq * sizeof *tokens);
}

static int load_tokens(struct model *m, const int32_t *tokens, struct err *err)
{
    TRY(check_tokens(m, tokens, err));
    load_shifted(m, tokens, 0, m->shape.seq, m->token);
    load_shifted(m, tokens, 1, m->shape.seq, m->target);
    for (uint32_t k = 0; k < m->config.num_nextn_predict_layers; k++) {
        struct mtp *p = &m->mtp[k];
        load_shifted(m, tokens, p->depth, p->shape.seq, p->token);
        load_shifted(m, tokens, p->depth + 1, p->shape.seq, p->target);
    }
    return 0;
}

/* ---- passes */

static int forward(struct model *m, struct err *err)
{
    struct ctx *c = &m->ctx;
    uint32_t layers = m->config.num_hidden_layers;
    c->op->embed(m->token, m->embed.operand, m->block[0].x);
    for (uint32_t l = 0; l < layers; l++) {
        struct mat out = l + 1 < layers ? m->block[l + 1].x : m->last;
        TRY(block_forward(c, &m->block[l], m->shape, out, err));
    }
    c->op->rmsnorm(m->last, m->norm.w, (float)m->config.rms_norm_eps, m->hidden, m->rstd);
    store(c, m->hidden);
    return 0;
}

static int forward_mtp(struct model *m, struct err *err)
{
    struct mat previous = m->hidden;
    for (uint32_t k = 0; k < m->config.num_nextn_predict_layers; k++) {
        TRY(mtp_forward(&m->ctx, &m->mtp[k], &m->embed, previous, err));
        previous = m->mtp[k].out;
    }
    return 0;
}

/* Losses of all heads; with gradients, those of what the heads see. mtp_scale: of each module's
 * summed loss. */
static void heads(struct model *m, bool gradient, float mtp_scale, struct model_losses *sums)
{
    struct ctx *c = &m->ctx;
    uint32_t modules = m->config.num_nextn_predict_layers;
    sums->loss += head_loss(c, &m->head, m->hidden, m->target, gradient ? 1.0f : 0.0f, m->dhidden);
    sums->tokens += m->shape.rows;
    sums->balance += m->options.balance_alpha * c->balance;
    for (uint32_t k = 0; k < modules; k++) {
        struct mtp *p = &m->mtp[k];
        struct mat dnormed = mat_rows(m->d, 0, p->shape.rows); /* free until the backward pass */
        float scale = gradient ? mtp_scale : 0;
        sums->mtp_loss += head_loss(c, &m->head, p->normed, p->target, scale, dnormed) / modules;
        if (scale != 0) {
            c->op->rmsnorm_backward(p->out, p->norm.w, p->rstd, dnormed, p->dout, false,
                                    c->grad_scale, p->norm.grad);
        } else if (gradient) {
            c->op->zero(p->dout); /* its balance loss still has a gradient */
        }
    }
}

static int backward(struct model *m, struct err *err)
{
    struct ctx *c = &m->ctx;
    for (uint32_t k = m->config.num_nextn_predict_layers; k-- > 0;) {
        struct mat previous = k > 0 ? m->mtp[k - 1].dout : m->dhidden;
        TRY(mtp_backward(c, &m->mtp[k], &m->embed, previous, err));
    }
    c->op->rmsnorm_backward(m->last, m->norm.w, m->rstd, m->dhidden, m->d, false, c->grad_scale,
                            m->norm.grad);
    for (uint32_t l = m->config.num_hidden_layers; l-- > 0;) {
        TRY(block_backward(c, &m->block[l], m->shape, m->d, err));
    }
    c->op->embed_backward(m->token, m->d, c->grad_scale, m->embed.grad);
    return 0;
}

int model_train(struct model *m, const int32_t *tokens, double grad_scale,
                struct model_losses *sums, struct err *err)
{
    uint32_t modules = m->config.num_nextn_predict_layers;
    float mtp_scale = modules > 0 ? (float)(m->options.mtp_lambda / modules) : 0;
    m->ctx.grad_scale = (float)grad_scale;
    m->ctx.balance = 0;
    m->ctx.count_load = true;
    TRY(load_tokens(m, tokens, err));
    TRY(forward(m, err));
    TRY(forward_mtp(m, err));
    heads(m, true, mtp_scale, sums);
    return backward(m, err);
}

int model_eval(struct model *m, const int32_t *tokens, bool count_load, struct model_losses *sums,
               struct err *err)
{
    m->ctx.balance = 0;
    m->ctx.count_load = count_load;
    TRY(load_tokens(m, tokens, err));
    TRY(forward(m, err));
    TRY(forward_mtp(m, err));
    heads(m, false, 0, sums);
    return 0;
}

int model_logits(struct model *m, const int32_t *tokens, float *out, struct err *err)
{
    m->ctx.count_load = false;
    TRY(load_tokens(m, tokens, err));
    TRY(forward(m, err));
    head_logits(&m->ctx, &m->head, m->hidden, out);
    return 0;
}
