/* The precision recipe (proto/recipe.h) of one Linear's three products, and of what is stored. */
#include "trainer/layer.h"

struct op_groups one_group(size_t rows, size_t offset[2])
{
    offset[0] = 0;
    offset[1] = rows;
    return (struct op_groups){1, offset};
}

static const struct op_groups none = {0};

/* What a Linear multiplies, where the recipe's own Linears multiply in `own`. */
static enum precision product(const struct recipe *r, const struct linear *l, enum precision own)
{
    switch (l->kind) {
    case LINEAR_RECIPE:
        return own;
    case LINEAR_HIGH:
        return r->rest;
    case LINEAR_GATE:
        break;
    }
    return PRECISION_FP32;
}

void store(const struct ctx *c, struct mat y)
{
    if (c->recipe.rest == PRECISION_BF16) {
        c->op->quantise(OP_BF16, none, y, y);
    }
}

enum op_format recipe_stored(const struct recipe *r, enum precision format, enum recipe_scale scale)
{
    if (format == PRECISION_FP8) {
        return scale == RECIPE_SCALE_POW2 ? OP_FP8_ROW_POW2 : OP_FP8_ROW;
    }
    return format == PRECISION_BF16 || r->rest == PRECISION_BF16 ? OP_BF16 : OP_F32;
}

bool recipe_rounds(const struct recipe *r, enum precision format)
{
    return format == PRECISION_FP8 || (format == PRECISION_BF16 && r->rest != PRECISION_BF16);
}

void store_as(const struct ctx *c, enum precision format, enum recipe_scale scale, struct mat x,
              struct mat y)
{
    if (recipe_rounds(&c->recipe, format)) {
        c->op->quantise(recipe_stored(&c->recipe, format, scale), none, x, y);
    }
}

/* ---- inputs */

bool linear_rounds_input(const struct recipe *r, const struct linear *l)
{
    return recipe_rounds(r, product(r, l, r->fprop));
}

/* Whether what Fprop multiplied is what Wgrad's operand is made of. */
static bool keeps_operand(const struct recipe *r)
{
    return r->fprop == r->wgrad && (r->wgrad != PRECISION_FP8 || r->requantise == RECIPE_YES);
}

/* In tiles of the groups' own: none spans two experts. */
static void round_fp8(const struct ctx *c, enum recipe_tile tile, struct op_groups groups,
                      struct mat x, struct mat y)
{
    if (tile == RECIPE_TILE_ROW) {
        c->op->quantise(OP_FP8_ROW, none, x, y);
        return;
    }
    for (size_t g = 0; g < groups.count; g++) {
        size_t first = groups.offset[g], rows = groups.offset[g + 1] - first;
        c->op->quantise(OP_FP8_BLOCK, none, mat_rows(x, first, rows), mat_rows(y, first, rows));
    }
}

void linear_round(const struct ctx *c, const struct linear *l, struct op_groups groups,
                  struct mat x, struct mat operand)
{
    if (!linear_rounds_input(&c->recipe, l)) {
        return;
    }
    if (product(&c->recipe, l, c->recipe.fprop) == PRECISION_FP8) {
        round_fp8(c, c->recipe.x_tile, groups, x, operand);
    } else {
        c->op->quantise(OP_BF16, none, x, operand);
    }
}

void linear_keep(const struct ctx *c, const struct linear *l, struct op_groups groups, struct mat x)
{
    if (keeps_operand(&c->recipe)) {
        linear_round(c, l, groups, x, x);
    }
}

enum op_format linear_kept_format(const struct recipe *r, const struct linear *l,
                                  enum op_format stored)
{
    if (!keeps_operand(r) || !linear_rounds_input(r, l)) {
        return stored;
    }
    if (product(r, l, r->fprop) == PRECISION_BF16) {
        return OP_BF16;
    }
    return r->x_tile == RECIPE_TILE_ROW ? OP_FP8_ROW : OP_F32; /* codes are in rows' tiles */
}

struct mat linear_kept_operand(const struct ctx *c, const struct linear *l, struct op_groups groups,
                               struct mat x)
{
    if (keeps_operand(&c->recipe) || !linear_rounds_input(&c->recipe, l)) {
        return x;
    }
    struct mat operand = mat_of(c->operand_x, x.rows, x.cols);
    linear_round(c, l, groups, x, operand);
    return operand;
}

struct mat linear_operand(const struct ctx *c, const struct linear *l, struct op_groups groups,
                          struct mat x)
{
    linear_keep(c, l, groups, x);
    return linear_kept_operand(c, l, groups, x);
}

bool recipe_sends_operand(const struct recipe *r, enum precision product, enum recipe_tile tile)
{
    return r->dispatch == PRECISION_FP8 && product == PRECISION_FP8 && tile == RECIPE_TILE_ROW;
}

/* ---- products */

void linear_forward(const struct ctx *c, const struct linear *l, struct op_groups groups,
                    struct mat x, struct mat y)
{
    c->op->linear(groups, x, l->operand, y);
}

void linear_backward_input(const struct ctx *c, const struct linear *l, struct op_groups groups,
                           struct mat dy, struct mat dx, bool add)
{
    enum precision p = product(&c->recipe, l, c->recipe.dgrad);
    struct mat operand = mat_of(c->operand_dy, dy.rows, dy.cols);
    if (p == PRECISION_FP32 || l->dy_is_operand) {
        operand = dy;
    } else if (p == PRECISION_BF16) {
        c->op->quantise(OP_BF16, none, dy, operand);
    } else {
        /* a tile never spans two Linears */
        for (uint32_t i = 0, first = 0; i < l->parts; first += l->part[i], i++) {
            round_fp8(c, c->recipe.dy_tile, groups, mat_cols(dy, first, l->part[i]),
                      mat_cols(operand, first, l->part[i]));
        }
    }
    c->op->linear_dx(groups, operand, l->operand_dx, dx, add);
}

/* x or dy as Wgrad multiplies it. */
static struct mat wgrad_operand(const struct ctx *c, enum precision p, bool pow2,
                                struct op_groups groups, struct mat x, float *room)
{
    struct mat operand = mat_of(room, x.rows, x.cols);
    if (p == PRECISION_FP32) {
        return x;
    }
    enum op_format column = pow2 ? OP_FP8_COL_POW2 : OP_FP8_COL;
    c->op->quantise(p == PRECISION_FP8 ? column : OP_BF16, groups, x, operand);
    return operand;
}

void linear_backward_weight(const struct ctx *c, const struct linear *l, struct op_groups groups,
                            struct mat dy, struct mat x)
{
    if (c->later != NULL) {
        later_add(c->later, l, groups, dy, x);
        return;
    }
    enum precision p = product(&c->recipe, l, c->recipe.wgrad);
    struct mat dy_operand = wgrad_operand(c, p, l->dy_pow2, groups, dy, c->operand_dy);
    if (recipe_rounds(&c->recipe, p)) {
        x = wgrad_operand(c, p, l->x_pow2, groups, x, c->operand_x);
    }
    c->op->linear_dw(groups, dy_operand, x, c->grad_scale, l->grad);
}

void linear_reserve(struct builder *b, const struct linear *l, size_t rows)
{
    size_t dy = rows * l->n, x = rows * l->k;
    b->operand_dy = dy > b->operand_dy ? dy : b->operand_dy;
    b->operand_x = x > b->operand_x ? x : b->operand_x;
}
