#include "trainer/layer.h"

struct op_groups one_group(size_t rows, size_t offset[2])
{
    offset[0] = 0;
    offset[1] = rows;
    return (struct op_groups){1, offset};
}

static const struct op_groups none = {0};

static bool is_fp8(const struct ctx *c, const struct linear *l)
{
    return c->precision == PRECISION_FP8 && l->kind == LINEAR_RECIPE;
}

static bool is_bf16(const struct ctx *c, const struct linear *l)
{
    return c->precision == PRECISION_BF16 && l->kind != LINEAR_GATE;
}

void store(const struct ctx *c, struct mat y)
{
    if (c->precision == PRECISION_BF16) {
        c->op->quantise(OP_BF16, none, y, y);
    }
}

bool linear_rounds_input(const struct ctx *c, const struct linear *l)
{
    return is_fp8(c, l); /* in a BF16 run stored activations are rounded already */
}

void linear_input(const struct ctx *c, const struct linear *l, struct mat x, struct mat operand)
{
    if (linear_rounds_input(c, l)) {
        c->op->quantise(OP_FP8_ROW, none, x, operand);
    }
}

void linear_forward(const struct ctx *c, const struct linear *l, struct op_groups groups,
                    struct mat x, struct mat y)
{
    c->op->linear(groups, x, l->operand, y);
}

/* dy rounded for Dgrad. A 1 x 128 tile never spans two Linears. */
static struct mat operand_dy(const struct ctx *c, const struct linear *l, struct mat dy)
{
    struct mat out = mat_of(c->operand_dy, dy.rows, dy.cols);
    if (is_bf16(c, l)) {
        c->op->quantise(OP_BF16, none, dy, out);
        return out;
    }
    if (!is_fp8(c, l)) {
        return dy;
    }
    for (uint32_t i = 0, first = 0; i < l->parts; first += l->part[i], i++) {
        c->op->quantise(OP_FP8_ROW, none, mat_cols(dy, first, l->part[i]),
                        mat_cols(out, first, l->part[i]));
    }
    return out;
}

void linear_backward_input(const struct ctx *c, const struct linear *l, struct op_groups groups,
                           struct mat dy, struct mat dx, bool add)
{
    c->op->linear_dx(groups, operand_dy(c, l, dy), l->operand, dx, add);
}

void linear_backward_weight(const struct ctx *c, const struct linear *l, struct op_groups groups,
                            struct mat dy, struct mat x)
{
    if (is_fp8(c, l)) {
        struct mat dy_cols = mat_of(c->operand_dy, dy.rows, dy.cols);
        struct mat x_cols = mat_of(c->operand_x, x.rows, x.cols);
        c->op->quantise(OP_FP8_COL, groups, dy, dy_cols);
        c->op->quantise(OP_FP8_COL, groups, x, x_cols);
        c->op->linear_dw(groups, dy_cols, x_cols, c->grad_scale, l->grad);
        return;
    }
    c->op->linear_dw(groups, operand_dy(c, l, dy), x, c->grad_scale, l->grad);
}

void linear_reserve(struct builder *b, const struct linear *l, size_t rows)
{
    size_t dy = rows * l->n, x = rows * l->k;
    b->operand_dy = dy > b->operand_dy ? dy : b->operand_dy;
    b->operand_x = x > b->operand_x ? x : b->operand_x;
}
