/* One decoder layer: middle = x + mla(norm(x)); out = middle + ffn-or-moe(norm(middle)). */
#include <stdio.h>

#include "trainer/layer.h"

static void name_of(char *out, size_t size, uint32_t layer, const char *rest)
{
    snprintf(out, size, "model.layers.%u.%s", layer, rest);
}

void block_build(struct block *k, struct builder *b, uint32_t layer, struct router *router)
{
    const struct model_config *c = b->config;
    char name[sizeof((struct param *)0)->name];
    size_t rows = b->shape.rows, hidden = c->hidden_size;
    b->scratch->used = 0;
    k->is_moe = model_config_is_moe(c, layer);
    k->x = arena_mat(b->keep, rows, hidden);
    k->normed = arena_mat(b->keep, rows, hidden);
    k->middle = arena_mat(b->keep, rows, hidden);
    k->post = arena_mat(b->keep, rows, hidden);
    k->post_in = k->post;
    if (k->is_moe && b->precision == PRECISION_FP8) {
        k->post_in = arena_mat(b->keep, rows, hidden); /* the gate sees `post` unrounded */
    }
    k->input_rstd = arena_floats(b->keep, rows);
    k->post_rstd = arena_floats(b->keep, rows);
    k->y = arena_mat(b->scratch, rows, hidden);
    k->dnormed = arena_mat(b->scratch, rows, hidden);
    size_t mark = b->scratch->used;

    name_of(name, sizeof name, layer, "");
    params_vector(b->params, &k->input_norm, name, "input_layernorm.weight", c->hidden_size);
    name_of(name, sizeof name, layer, "self_attn.");
    mla_build(&k->mla, b, name);
    b->scratch->used = mark;
    name_of(name, sizeof name, layer, "");
    params_vector(b->params, &k->post_norm, name, "post_attention_layernorm.weight",
                  c->hidden_size);
    name_of(name, sizeof name, layer, "mlp.");
    if (k->is_moe) {
        moe_build(&k->moe, b, name, router);
    } else {
        ffn_build(&k->ffn, b, name, rows, c->intermediate_size, 0, 0);
    }
}

int block_forward(struct ctx *c, struct block *k, struct shape s, struct mat out, struct err *err)
{
    size_t offset[2], rows = s.rows;
    float eps = (float)c->config->rms_norm_eps;
    struct mat x = mat_rows(k->x, 0, rows), y = mat_rows(k->y, 0, rows);
    struct mat normed = mat_rows(k->normed, 0, rows), middle = mat_rows(k->middle, 0, rows);
    struct mat post = mat_rows(k->post, 0, rows), post_in = mat_rows(k->post_in, 0, rows);
    c->op->rmsnorm(x, k->input_norm.w, eps, normed, k->input_rstd);
    store(c, normed);
    linear_input(c, &k->mla.a, normed, normed);
    mla_forward(c, &k->mla, s, normed, y);
    c->op->add(x, y, middle);
    store(c, middle);

    c->op->rmsnorm(middle, k->post_norm.w, eps, post, k->post_rstd);
    store(c, post);
    if (k->is_moe) {
        linear_input(c, &k->moe.routed.gate_up, post, post_in);
        TRY(moe_forward(c, &k->moe, s, post, post_in, y, err));
    } else {
        linear_input(c, &k->ffn.gate_up, post, post_in);
        ffn_forward(c, &k->ffn, one_group(rows, offset), post_in, y);
    }
    c->op->add(middle, y, out);
    store(c, out);
    return 0;
}

int block_backward(struct ctx *c, struct block *k, struct shape s, struct mat d, struct err *err)
{
    size_t offset[2], rows = s.rows;
    struct mat x = mat_rows(k->x, 0, rows), middle = mat_rows(k->middle, 0, rows);
    struct mat normed = mat_rows(k->normed, 0, rows), dnormed = mat_rows(k->dnormed, 0, rows);
    struct mat post = mat_rows(k->post, 0, rows), post_in = mat_rows(k->post_in, 0, rows);
    if (k->is_moe) {
        TRY(moe_backward(c, &k->moe, s, post, post_in, d, dnormed, err));
    } else {
        ffn_backward(c, &k->ffn, one_group(rows, offset), post_in, d, dnormed, false);
    }
    c->op->rmsnorm_backward(middle, k->post_norm.w, k->post_rstd, dnormed, d, true, c->grad_scale,
                            k->post_norm.grad);
    mla_backward(c, &k->mla, s, normed, d, dnormed);
    c->op->rmsnorm_backward(x, k->input_norm.w, k->input_rstd, dnormed, d, true, c->grad_scale,
                            k->input_norm.grad);
    return 0;
}
