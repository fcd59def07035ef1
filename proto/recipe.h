/* The precision recipe of a run (docs/recipe.md): what is rounded to which grid, and what the
 * backward pass computes again. Each field is a key of the job file under train.recipe, so that
 * each choice of the published recipe can be switched off on its own. */
#ifndef PROTO_RECIPE_H
#define PROTO_RECIPE_H

#include <stdbool.h>

#include "lib/yaml.h"

struct buf;

enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_FP8 };

/* Elements that share a scale, of an activation or its gradient. */
enum recipe_tile { RECIPE_TILE_ROW /* 1x128 */, RECIPE_TILE_BLOCK /* 128x128 */ };
/* enum precision, and E5M6. */
enum recipe_cache { RECIPE_CACHE_FP32, RECIPE_CACHE_BF16, RECIPE_CACHE_FP8, RECIPE_CACHE_E5M6 };
enum recipe_scale { RECIPE_SCALE_EXACT, RECIPE_SCALE_POW2 };
enum recipe_flag { RECIPE_NO, RECIPE_YES };

struct recipe {
    enum precision fprop, dgrad, wgrad; /* operands of a Linear's three products */
    enum precision rest; /* FP32 or BF16: stored activations, and operands of all other products */
    enum recipe_tile x_tile, dy_tile;   /* of FP8 operands of Fprop and Dgrad; Wgrad's are 128x1 */
    enum recipe_flag requantise;        /* Wgrad's input is made from Fprop's FP8 operand */
    enum recipe_cache attention_output; /* as kept for the backward pass: input of o_proj */
    enum precision swiglu_input;        /* as kept for the backward pass */
    enum precision dispatch;            /* rows on their way to experts, and their gradients */
    enum recipe_scale dispatch_scale;   /* where dispatch is FP8 */
    enum precision combine;             /* FP32 or BF16: rows on their way back */
    enum precision moments;             /* FP32 or BF16: AdamW's */
    enum recipe_flag recompute_norm, recompute_mla_up, recompute_swiglu;
};

/* The published recipe for FP8; for BF16 and FP32 nothing but that precision. */
struct recipe recipe_of(enum precision precision);
/* Reads train.recipe over the defaults that *recipe holds. */
int recipe_read(const struct yaml_item *map, struct recipe *recipe, struct err *err);
/* {"fprop": "fp8", ...}, every key. */
void recipe_json(struct buf *out, const struct recipe *recipe);
bool recipe_equal(const struct recipe *a, const struct recipe *b);

#endif
