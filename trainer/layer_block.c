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
    struct arena *normed = b->recipe.recompute_norm ? b->scratch : b->keep;
    k->middle = arena_mat(b->keep, rows, hidden);
    k->normed = arena_mat(normed, rows, hidden);
    k->post = arena_mat(normed, rows, hidden);
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

static void norm(const struct ctx *c, const struct vector *v, struct mat x, struct mat y,
                 float *rstd)
{
    c->op->rmsnorm(x, v->w, (float)c->config->rms_norm_eps, y, rstd);
    store(c, y);
}

int block_forward(struct ctx *c, struct block *k, struct shape s, struct mat out, struct err *err)
{
    size_t offset[2], rows = s.rows;
    struct mat x = mat_rows(k->x, 0, rows), y = mat_rows(k->y, 0, rows);
    struct mat normed = mat_rows(k->normed, 0, rows), middle = mat_rows(k->middle, 0, rows);
    struct mat post = mat_rows(k->post, 0, rows);
    norm(c, &k->input_norm, x, normed, k->input_rstd);
    mla_forward(c, &k->mla, s, normed, y);
    c->op->add(x, y, middle);
    store(c, middle);

    norm(c, &k->post_norm, middle, post, k->post_rstd);
    if (k->is_moe) {
        TRY(moe_forward(c, &k->moe, s, post, y, err));
    } else {
        ffn_forward(c, &k->ffn, one_group(rows, offset), post, y);
    }
    c->op->add(middle, y, out);
    store(c, out);
    return 0;
}

int block_backward(struct ctx *c, struct block *k, struct shape s, struct mat d, struct err *err)
{
    size_t offset[2], rows = s.rows;
    struct op_groups all = one_group(rows, offset);
    struct mat x = mat_rows(k->x, 0, rows), middle = mat_rows(k->middle, 0, rows);
    struct mat normed = mat_rows(k->normed, 0, rows), dnormed = mat_rows(k->dnormed, 0, rows);
    struct mat post = mat_rows(k->post, 0, rows);
    bool recompute = c->recipe.recompute_norm == RECIPE_YES;
    if (recompute) {
        norm(c, &k->post_norm, middle, post, k->post_rstd);
    }
    if (k->is_moe) {
        TRY(moe_backward(c, &k->moe, s, post, d, dnormed, err));
    } else {
        if (recompute) {
            linear_keep(c, &k->ffn.gate_up, all, post);
        }
        ffn_backward(c, &k->ffn, all, post, d, dnormed, false);
    }
    c->op->rmsnorm_backward(middle, k->post_norm.w, k->post_rstd, dnormed, d, true, c->grad_scale,
                            k->post_norm.grad);
    if (recompute) {
        norm(c, &k->input_norm, x, normed, k->input_rstd);
        linear_keep(c, &k->mla.a, all, normed);
    }
    mla_backward(c, &k->mla, s, normed, d, dnormed);
    c->op->rmsnorm_backward(x, k->input_norm.w, k->input_rstd, dnormed, d, true, c->grad_scale,
                            k->input_norm.grad);
    return 0;
}
