#include "proto/recipe.h"

#include "lib/buf.h"
#include "lib/buf_json.h"

static const char *const operands[] = {"fp32", "bf16", "fp8", NULL};
static const char *const high[] = {"fp32", "bf16", NULL};
static const char *const caches[] = {"fp32", "bf16", "fp8", "e5m6", NULL};
static const char *const tiles[] = {"1x128", "128x128", NULL};
static const char *const scales[] = {"exact", "pow2", NULL};
static const char *const flags[] = {"false", "true", NULL};

#define FIELD(name, values)                                                                        \
    {                                                                                              \
        .key = #name, .type = YAML_CHOICE, .offset = offsetof(struct recipe, name),                \
        .choices = values                                                                          \
    }
static const struct yaml_field fields[] = {FIELD(fprop, operands),
                                           FIELD(dgrad, operands),
                                           FIELD(wgrad, operands),
                                           FIELD(rest, high),
                                           FIELD(x_tile, tiles),
                                           FIELD(dy_tile, tiles),
                                           FIELD(requantise, flags),
                                           FIELD(attention_output, caches),
                                           FIELD(swiglu_input, operands),
                                           FIELD(dispatch, operands),
                                           FIELD(dispatch_scale, scales),
                                           FIELD(combine, high),
                                           FIELD(moments, high),
                                           FIELD(recompute_norm, flags),
                                           FIELD(recompute_mla_up, flags),
                                           FIELD(recompute_swiglu, flags),
                                           {.key = NULL}};

struct recipe recipe_of(enum precision precision)
{
    bool fp8 = precision == PRECISION_FP8;
    enum precision kept = fp8 ? PRECISION_FP32 : precision;
    return (struct recipe){
        .fprop = precision,
        .dgrad = precision,
        .wgrad = precision,
        .rest = kept,
        .x_tile = RECIPE_TILE_ROW,
        .dy_tile = RECIPE_TILE_ROW,
        .requantise = RECIPE_YES,
        .attention_output = fp8 ? RECIPE_CACHE_E5M6 : (enum recipe_cache)precision,
        .swiglu_input = precision,
        .dispatch = precision,
        .dispatch_scale = RECIPE_SCALE_POW2,
        .combine = fp8 ? PRECISION_BF16 : precision,
        .moments = fp8 ? PRECISION_BF16 : PRECISION_FP32,
        .recompute_norm = fp8 ? RECIPE_YES : RECIPE_NO,
        .recompute_mla_up = fp8 ? RECIPE_YES : RECIPE_NO,
        .recompute_swiglu = RECIPE_YES,
    };
}

int recipe_read(const struct yaml_item *map, struct recipe *recipe, struct err *err)
{
    return yaml_read(map, fields, recipe, err);
}

static int value_of(const struct recipe *recipe, const struct yaml_field *f)
{
    return *(const int *)((const char *)recipe + f->offset);
}

void recipe_json(struct buf *out, const struct recipe *recipe)
{
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        buf_printf(out, "%s\"%s\": ", f == fields ? "{" : ", ", f->key);
        const char *value = f->choices[value_of(recipe, f)];
        if (f->choices == flags) {
            buf_append_str(out, value);
        } else {
            buf_json_text(out, value);
        }
    }
    buf_append_str(out, "}");
}

bool recipe_equal(const struct recipe *a, const struct recipe *b)
{
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        if (value_of(a, f) != value_of(b, f)) {
            return false;
        }
    }
    return true;
}
