/* SwiGLU: y = (silu(x W_gate^T) * (x W_up^T)) W_down^T. The product is not kept: the backward pass
 * computes it again (recipe §2). */
#include <stdio.h>

#include "trainer/layer.h"

static void expert_prefix(char *out, size_t size, const char *prefix, uint32_t id)
{
    snprintf(out, size, "%s%u.", prefix, id);
}

void ffn_build(struct ffn *f, struct builder *b, const char *prefix, size_t rows, uint32_t width,
               uint32_t first, uint32_t experts)
{
    struct params *p = b->params;
    uint32_t hidden = b->config->hidden_size, copies = experts > 0 ? experts : 1;
    char name[sizeof((struct param *)0)->name];
    params_align(p);
    for (uint32_t e = 0; e < copies; e++) {
        struct linear pair = {0};
        int32_t id = experts > 0 ? (int32_t)(first + e) : -1;
        expert_prefix(name, sizeof name, prefix, first + e);
        const char *own = experts > 0 ? name : prefix;
        params_linear(p, &pair, LINEAR_RECIPE, id, own, "gate_proj.weight", width, hidden);
        params_linear(p, &pair, LINEAR_RECIPE, id, own, "up_proj.weight", width, hidden);
        f->gate_up = e == 0 ? pair : f->gate_up;
    }
    params_align(p);
    for (uint32_t e = 0; e < copies; e++) {
        struct linear down = {0};
        int32_t id = experts > 0 ? (int32_t)(first + e) : -1;
        expert_prefix(name, sizeof name, prefix, first + e);
        params_linear(p, &down, LINEAR_RECIPE, id, experts > 0 ? name : prefix, "down_proj.weight",
                      hidden, width);
        f->down = e == 0 ? down : f->down;
    }
    enum op_format format = recipe_stored(&b->recipe, b->recipe.swiglu_input, RECIPE_SCALE_EXACT);
    kept_build(&f->gu, b, format, 2, rows, 2 * (size_t)width);
    f->act = arena_mat(b->recipe.recompute_swiglu ? b->scratch : b->keep, rows, width);
    f->out = f->act;
    if (!b->recipe.recompute_swiglu) {
        f->out = arena_mat(b->scratch, rows, width);
    }
    f->dact = arena_mat(b->scratch, rows, width);
    f->dgu = arena_mat(b->scratch, rows, 2 * (size_t)width);
    linear_reserve(b, &f->gate_up, rows);
    linear_reserve(b, &f->down, rows);
}

/* Gate and up as the backward pass will have them; a tile never spans both. */
static void keep_gu(const struct ctx *c, struct mat gu)
{
    for (size_t part = 0; part < 2; part++) {
        struct mat half = mat_cols(gu, part * gu.cols / 2, gu.cols / 2);
        store_as(c, c->recipe.swiglu_input, RECIPE_SCALE_EXACT, half, half);
    }
}

void ffn_forward(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                 struct mat y)
{
    struct mat gu = mat_rows(f->gu.full, 0, x.rows), act = mat_rows(f->act, 0, x.rows);
    struct mat operand = f->x_is_operand ? x : linear_operand(c, &f->gate_up, groups, x);
    linear_forward(c, &f->gate_up, groups, operand, gu);
    store(c, gu);
    c->op->swiglu(gu, act);
    store(c, act);
    linear_forward(c, &f->down, groups, linear_operand(c, &f->down, groups, act), y);
    store(c, y);
    keep_gu(c, gu);
    kept_pack(c, &f->gu, x.rows);
}

void ffn_backward_input(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat dy,
                        struct mat dx, bool add)
{
    struct mat gu = kept_unpack(c, &f->gu, dy.rows), dgu = mat_rows(f->dgu, 0, dy.rows);
    struct mat dact = mat_rows(f->dact, 0, dy.rows), out = mat_rows(f->out, 0, dy.rows);
    linear_backward_input(c, &f->down, groups, dy, dact, false);
    c->op->swiglu_backward(gu, dact, dgu, out);
    store(c, out);
    linear_backward_input(c, &f->gate_up, groups, dgu, dx, add);
}

void ffn_backward_weight(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                         struct mat dy)
{
    linear_backward_weight(c, &f->down, groups, dy, mat_rows(f->act, 0, x.rows));
    linear_backward_weight(c, &f->gate_up, groups, mat_rows(f->dgu, 0, x.rows), x);
}

void ffn_backward(const struct ctx *c, struct ffn *f, struct op_groups groups, struct mat x,
                  struct mat dy, struct mat dx, bool add)
{
    ffn_backward_input(c, f, groups, dy, dx, add);
    ffn_backward_weight(c, f, groups, x, dy);
}
