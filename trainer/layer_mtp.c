/* Multi-token prediction, module k (report §2.2 with the released weights' conventions,
 * docs/numerics.md):
 *
 *   h'_i = W_eh [ enorm(Emb(t_{i+k})) ; hnorm(h_i) ], i = 1 .. T-k     embedding first
 *   out = block(h'),  logits_i = head(norm(out_i)) predicts t_{i+k+1}
 *
 * h is the main model's output after its last norm for k = 1, the previous module's block output
 * for k > 1. Embedding and head are the main model's, and so are the gradients that come to them
 * from here. */
#include <stdio.h>

#include "trainer/layer.h"

void mtp_build(struct mtp *m, struct builder *b, uint32_t depth, struct router *router)
{
    const struct model_config *c = b->config;
    char prefix[sizeof((struct param *)0)->name];
    uint32_t layer = c->num_hidden_layers + depth - 1, hidden = c->hidden_size;
    struct shape whole = b->shape;
    size_t seq = whole.seq - depth, rows = whole.batch * seq;
    m->depth = depth;
    m->shape = (struct shape){whole.batch, seq, rows};
    snprintf(prefix, sizeof prefix, "model.layers.%u.", layer);
    params_vector(b->params, &m->enorm, prefix, "enorm.weight", hidden);
    params_vector(b->params, &m->hnorm, prefix, "hnorm.weight", hidden);
    m->eh = (struct linear){0};
    params_align(b->params);
    params_linear(b->params, &m->eh, LINEAR_HIGH, -1, prefix, "eh_proj.weight", hidden, 2 * hidden);
    linear_reserve(b, &m->eh, rows);
    b->shape = m->shape;
    block_build(&m->block, b, layer, router);
    b->shape = whole;
    params_vector(b->params, &m->norm, prefix, "shared_head.norm.weight", hidden);

    m->token = arena_take(b->keep, rows * sizeof *m->token);
    m->target = arena_take(b->keep, rows * sizeof *m->target);
    m->embedded = arena_mat(b->keep, rows, hidden);
    m->hidden = arena_mat(b->keep, rows, hidden);
    m->out = arena_mat(b->keep, rows, hidden);
    m->normed = arena_mat(b->keep, rows, hidden);
    m->dout = arena_mat(b->keep, rows, hidden);
    m->e_rstd = arena_floats(b->keep, rows);
    m->h_rstd = arena_floats(b->keep, rows);
    m->rstd = arena_floats(b->keep, rows);
    b->scratch->used = 0;
    m->djoined = arena_mat(b->scratch, rows, 2 * (size_t)hidden);
    m->dembedded = arena_mat(b->scratch, rows, hidden);
    m->dhidden = arena_mat(b->scratch, rows, hidden);
    m->joined =
        arena_mat(b->recipe.recompute_norm ? b->scratch : b->keep, rows, 2 * (size_t)hidden);
}

void mtp_set_shape(struct mtp *m, struct shape model)
{
    size_t seq = model.seq - m->depth, rows = model.batch * seq;
    struct mat *all[] = {&m->embedded, &m->hidden,  &m->joined,    &m->out,    &m->normed,
                         &m->dout,     &m->djoined, &m->dembedded, &m->dhidden};
    m->shape = (struct shape){model.batch, seq, rows};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        all[i]->rows = rows;
    }
}

/* Input of eh_proj. */
static void join(const struct ctx *c, struct mtp *m)
{
    size_t hidden = m->hidden.cols;
    float eps = (float)c->config->rms_norm_eps;
    struct mat left = mat_cols(m->joined, 0, hidden), right = mat_cols(m->joined, hidden, hidden);
    c->op->rmsnorm(m->embedded, m->enorm.w, eps, left, m->e_rstd);
    c->op->rmsnorm(m->hidden, m->hnorm.w, eps, right, m->h_rstd);
    store(c, m->joined);
}

int mtp_forward(struct ctx *c, struct mtp *m, const struct linear *embed, struct mat previous,
                struct err *err)
{
    size_t offset[2], seq = m->shape.seq;
    c->op->embed(m->token, embed->operand, m->embedded);
    for (size_t i = 0; i < m->shape.batch; i++) {
        c->op->copy(mat_rows(previous, i * (seq + 1), seq), mat_rows(m->hidden, i * seq, seq));
    }
    join(c, m);
    linear_forward(c, &m->eh, one_group(m->shape.rows, offset), m->joined, m->block.x);
    store(c, m->block.x);
    TRY(block_forward(c, &m->block, m->shape, m->out, err));
    c->op->rmsnorm(m->out, m->norm.w, (float)c->config->rms_norm_eps, m->normed, m->rstd);
    store(c, m->normed);
    return 0;
}

int mtp_backward(struct ctx *c, struct mtp *m, const struct linear *embed, struct mat dprevious,
                 struct err *err)
{
    size_t offset[2], hidden = m->hidden.cols, seq = m->shape.seq;
    struct op_groups all = one_group(m->shape.rows, offset);
    TRY(block_backward(c, &m->block, m->shape, m->dout, err));
    if (c->recipe.recompute_norm) {
        join(c, m);
    }
    linear_backward_input(c, &m->eh, all, m->dout, m->djoined, false);
    linear_backward_weight(c, &m->eh, all, m->dout, m->joined);
    c->op->rmsnorm_backward(m->embedded, m->enorm.w, m->e_rstd, mat_cols(m->djoined, 0, hidden),
                            m->dembedded, false, c->grad_scale, m->enorm.grad);
    c->op->rmsnorm_backward(m->hidden, m->hnorm.w, m->h_rstd, mat_cols(m->djoined, hidden, hidden),
                            m->dhidden, false, c->grad_scale, m->hnorm.grad);
    c->op->embed_backward(m->token, m->dembedded, c->grad_scale, embed->grad);
    for (size_t i = 0; i < m->shape.batch; i++) {
        struct mat into = mat_rows(dprevious, i * (seq + 1), seq);
        c->op->add(into, mat_rows(m->dhidden, i * seq, seq), into);
    }
    return 0;
}
