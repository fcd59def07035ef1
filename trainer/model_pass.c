/* A micro-batch forward and backward through the layers a rank holds. */
#include <assert.h>
#include <string.h>

#include "trainer/model.h"
#include "trainer/model_parts.h"

/* ---- tokens */

static int check_tokens(const struct model *m, const int32_t *tokens, struct err *err)
{
    size_t row = m->options.sequence_length + 1;
    for (size_t i = 0; i < m->options.micro_batch * row; i++) {
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

/* out[b, i] = tokens[b, i + shift], seq of them a row; a row of tokens may hold several contexts */
static void load_shifted(struct model *m, const int32_t *tokens, size_t shift, size_t seq,
                         int32_t *out)
{
    size_t length = m->options.sequence_length, contexts = length / m->shape.seq;
    for (size_t b = 0; b < m->shape.batch; b++) {
        size_t first = b / contexts * (length + 1) + b % contexts * m->shape.seq;
        memcpy(m->host_token + b * seq, tokens + first + shift, seq * sizeof *tokens);
    }
    m->options.op->copy_from_host(out, m->host_token, m->shape.batch * seq * sizeof *tokens);
}

static int load_tokens(struct model *m, const struct stage *stage, struct slot *s,
                       const int32_t *tokens, struct err *err)
{
    if (!stage->first && !stage->last) {
        return 0;
    }
    TRY(check_tokens(m, tokens, err));
    load_shifted(m, tokens, 0, m->shape.seq, s->token);
    load_shifted(m, tokens, 1, m->shape.seq, s->target);
    for (uint32_t k = 0; stage->last && k < m->config.num_nextn_predict_layers; k++) {
        struct mtp *p = &s->mtp[k];
        load_shifted(m, tokens, p->depth, p->shape.seq, p->token);
        load_shifted(m, tokens, p->depth + 1, p->shape.seq, p->target);
    }
    return 0;
}

/* ---- passes */

static int forward_layers(struct model *m, const struct stage *stage, struct slot *s,
                          struct err *err)
{
    struct ctx *c = &m->ctx;
    uint32_t layers = stage->what.layers;
    if (stage->first) {
        c->op->embed(s->token, m->embed.operand, s->block[0].x);
    }
    for (uint32_t l = 0; l < layers; l++) {
        struct mat out = l + 1 < layers ? s->block[l + 1].x : s->out;
        TRY(block_forward(c, &s->block[l], m->shape, out, err));
    }
    if (stage->last) {
        c->op->rmsnorm(s->out, m->norm.w, (float)m->config.rms_norm_eps, s->hidden, s->rstd);
        store(c, s->hidden);
    }
    return 0;
}

static int forward_mtp(struct model *m, struct slot *s, struct err *err)
{
    struct mat previous = s->hidden;
    for (uint32_t k = 0; k < m->config.num_nextn_predict_layers; k++) {
        TRY(mtp_forward(&m->ctx, &s->mtp[k], &m->embed, previous, err));
        previous = s->mtp[k].out;
    }
    return 0;
}

/* Losses of all heads; with gradients, those of what the heads see. */
static void heads(struct model *m, struct slot *s, bool gradient, struct model_losses *sums)
{
    struct ctx *c = &m->ctx;
    uint32_t modules = m->config.num_nextn_predict_layers;
    float mtp_scale = modules > 0 ? (float)(m->options.mtp_lambda / modules) : 0;
    sums->loss += head_loss(c, &m->head, s->hidden, s->target, gradient ? 1.0f : 0.0f, s->dhidden);
    sums->tokens += m->shape.rows;
    for (uint32_t k = 0; k < modules; k++) {
        struct mtp *p = &s->mtp[k];
        struct mat dnormed = mat_rows(s->d, 0, p->shape.rows); /* free until the backward pass */
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

static struct slot *slot_of(struct model *m, uint32_t stage, uint32_t slot)
{
    assert(stage < m->stages && slot < m->stage[stage].what.slots);
    return &m->stage[stage].slot[slot];
}

struct mat model_input(struct model *m, uint32_t stage, uint32_t slot)
{
    return slot_of(m, stage, slot)->block[0].x;
}

struct mat model_output(struct model *m, uint32_t stage, uint32_t slot)
{
    return slot_of(m, stage, slot)->out;
}

struct mat model_gradient(struct model *m, uint32_t stage, uint32_t slot)
{
    struct slot *s = slot_of(m, stage, slot);
    return m->stage[stage].last ? s->d : s->out;
}

int model_forward(struct model *m, const struct model_pass *pass, const int32_t *tokens,
                  struct model_losses *sums, struct err *err)
{
    const struct stage *stage = &m->stage[pass->stage];
    struct slot *s = slot_of(m, pass->stage, pass->slot);
    m->ctx.grad_scale = (float)pass->grad_scale;
    m->ctx.balance = 0;
    m->ctx.count_load = pass->count_load;
    TRY(load_tokens(m, stage, s, tokens, err));
    TRY(forward_layers(m, stage, s, err));
    if (stage->last) {
        TRY(forward_mtp(m, s, err));
        heads(m, s, pass->gradient, sums);
    }
    sums->balance += m->options.balance_alpha * m->ctx.balance;
    return 0;
}

/* Whether a block's gradients are the last ones of experts here, and where they begin. */
static void note_final(const struct model_pass *pass, const struct block *k, const float *dense,
                       const float **expert)
{
    *expert = k != NULL && k->is_moe ? k->moe.routed.gate_up.grad : *expert;
    if (pass->final != NULL) {
        pass->final->fn(pass->final->ctx, dense, *expert);
    }
}

static int backward(struct model *m, const struct model_pass *pass, struct err *err)
{
    struct ctx *c = &m->ctx;
    const struct stage *stage = &m->stage[pass->stage];
    struct slot *s = slot_of(m, pass->stage, pass->slot);
    struct mat d = model_gradient(m, pass->stage, pass->slot);
    struct param_range experts = model_param_range(m, true);
    const float *expert = experts.grad + experts.count;
    c->grad_scale = (float)pass->grad_scale;
    if (stage->last) {
        for (uint32_t k = m->config.num_nextn_predict_layers; k-- > 0;) {
            struct mat previous = k > 0 ? s->mtp[k - 1].dout : s->dhidden;
            TRY(mtp_backward(c, &s->mtp[k], &m->embed, previous, err));
        }
        c->op->rmsnorm_backward(s->out, m->norm.w, s->rstd, s->dhidden, d, false, c->grad_scale,
                                m->norm.grad);
        note_final(pass, m->config.num_nextn_predict_layers > 0 ? &s->mtp[0].block : NULL,
                   m->norm.grad, &expert);
    }
    for (uint32_t l = stage->what.layers; l-- > 0;) {
        TRY(block_backward(c, &s->block[l], m->shape, d, err));
        note_final(pass, &s->block[l], s->block[l].input_norm.grad, &expert);
    }
    if (stage->first) {
        c->op->embed_backward(s->token, d, c->grad_scale, m->embed.grad);
    }
    return 0;
}

int model_backward(struct model *m, const struct model_pass *pass, struct err *err)
{
    m->ctx.later = pass->split ? &slot_of(m, pass->stage, pass->slot)->later : NULL;
    int rc = backward(m, pass, err);
    m->ctx.later = NULL;
    return rc;
}

void model_weights(struct model *m, const struct model_pass *pass)
{
    m->ctx.grad_scale = (float)pass->grad_scale;
    later_run(&slot_of(m, pass->stage, pass->slot)->later, &m->ctx);
}

int model_train(struct model *m, const int32_t *tokens, double grad_scale,
                struct model_losses *sums, struct err *err)
{
    const struct model_pass pass = {.gradient = true, .count_load = true, .grad_scale = grad_scale};
    TRY(model_forward(m, &pass, tokens, sums, err));
    return model_backward(m, &pass, err);
}

int model_eval(struct model *m, const int32_t *tokens, bool count_load, struct model_losses *sums,
               struct err *err)
{
    const struct model_pass pass = {.count_load = count_load};
    return model_forward(m, &pass, tokens, sums, err);
}

int model_logits(struct model *m, const int32_t *tokens, float *out, struct err *err)
{
    struct slot *s = &m->stage[0].slot[0];
    assert(m->stage[0].first && m->stage[0].last);
    m->ctx.count_load = false;
    TRY(load_tokens(m, &m->stage[0], s, tokens, err));
    TRY(forward_layers(m, &m->stage[0], s, err));
    head_logits(&m->ctx, &m->head, s->hidden, out);
    return 0;
}
