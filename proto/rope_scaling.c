#include "proto/rope_scaling.h"

#include <stddef.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/buf_json.h"

#define AT(member) .offset = offsetof(struct file, member)

struct file {
    struct rope_scaling r;
    int type, rope_type, truncate; /* types: -1 absent */
    double rope_theta;             /* 0: absent */
    const struct yaml_item *attention_factor;
};

static int keep_item(const struct yaml_item *item, void *place, struct err *err)
{
    (void)err;
    *(const struct yaml_item **)place = item;
    return 0;
}

static const char *const types[] = {"default", "yarn", NULL};
static const char *const only_true[] = {"true", NULL};
static const struct yaml_field fields[] = {
    {.key = "type", .type = YAML_CHOICE, AT(type), .choices = types},
    {.key = "rope_type", .type = YAML_CHOICE, AT(rope_type), .choices = types},
    {.key = "factor", .type = YAML_DOUBLE, AT(r.factor), .min = 1, .max = 1e6},
    {.key = "beta_fast", .type = YAML_DOUBLE, AT(r.beta_fast), .min = 1e-6, .max = 1e6},
    {.key = "beta_slow", .type = YAML_DOUBLE, AT(r.beta_slow), .min = 1e-6, .max = 1e6},
    {.key = "mscale", .type = YAML_DOUBLE, AT(r.mscale), .min = 0, .max = 100},
    {.key = "mscale_all_dim", .type = YAML_DOUBLE, AT(r.mscale_all_dim), .min = 0, .max = 100},
    {.key = "original_max_position_embeddings",
     .type = YAML_U32,
     AT(r.original_max_position_embeddings),
     .low = 1,
     .high = 1u << 30},
    {.key = "rope_theta", .type = YAML_DOUBLE, AT(rope_theta), .min = 1.0001, .max = 1e15},
    {.key = "attention_factor", .type = YAML_CUSTOM, AT(attention_factor), .read = keep_item},
    {.key = "truncate", .type = YAML_CHOICE, AT(truncate), .choices = only_true},
    {.key = NULL}};

static const struct file defaults = {
    .r = {.beta_fast = 32, .beta_slow = 1, .mscale = 1}, .type = -1, .rope_type = -1};

/* Of YaRN. */
static int check(const struct yaml_item *item, const struct file *f, struct err *err)
{
    if (f->attention_factor != NULL) {
        return yaml_refuse(f->attention_factor, err,
                           "not supported (allowed: mscale, mscale_all_dim)");
    }
    if (f->r.beta_fast <= f->r.beta_slow) {
        return yaml_refuse(item, err, "beta_fast %g is not over beta_slow %g", f->r.beta_fast,
                           f->r.beta_slow);
    }
    return 0;
}

static int type_of(const struct file *f)
{
    return f->rope_type >= 0 ? f->rope_type : f->type;
}

int rope_scaling_read_model(const struct yaml_item *item, struct rope_scaling *r, double *theta,
                            struct err *err)
{
    struct file f = defaults;
    TRY(yaml_read_open(item, fields, &f, err));
    *theta = f.rope_theta != 0 ? f.rope_theta : *theta;
    if (type_of(&f) < 0 && (f.r.factor > 0 || f.r.original_max_position_embeddings > 0)) {
        return yaml_refuse(item, err, "'type' is missing (allowed: default, yarn)");
    }
    if (type_of(&f) <= 0) {
        return 0;
    }
    if (f.r.factor == 0 || f.r.original_max_position_embeddings == 0) {
        return yaml_refuse(item, err, "yarn needs factor and original_max_position_embeddings");
    }
    TRY(check(item, &f, err));
    *r = f.r;
    r->yarn = true;
    return 0;
}

int rope_scaling_read_job(const struct yaml_item *item, struct rope_scaling *r, struct err *err)
{
    struct file f = defaults;
    if (item->kind != YAML_ITEM_MAP) {
        return yaml_refuse(item, err,
                           "a map is expected (allowed: such as {type: yarn, factor: 40})");
    }
    TRY(yaml_read(item, fields, &f, err));
    if (f.rope_theta != 0) {
        return yaml_refuse(yaml_get(item, "rope_theta"), err,
                           "is the model's: weights were trained with it (change train.model)");
    }
    if (type_of(&f) != 1 || f.r.factor == 0) {
        return yaml_refuse(
            item, err, "type and factor are needed (allowed: such as {type: yarn, factor: 40})");
    }
    TRY(check(item, &f, err));
    *r = f.r;
    r->yarn = true;
    return 0;
}

static void put_real(struct buf *out, const char *key, double value)
{
    buf_printf(out, ", \"%s\": ", key);
    size_t start = out->len;
    buf_json_double(out, value);
    if (strpbrk(buf_cstr(out) + start, ".e") == NULL) {
        buf_append_str(out, ".0");
    }
}

void rope_scaling_json(struct buf *out, const struct rope_scaling *r)
{
    if (!r->yarn) {
        buf_append_str(out, "null");
        return;
    }
    buf_append_str(out, "{\"type\": \"yarn\"");
    put_real(out, "factor", r->factor);
    put_real(out, "beta_fast", r->beta_fast);
    put_real(out, "beta_slow", r->beta_slow);
    put_real(out, "mscale", r->mscale);
    put_real(out, "mscale_all_dim", r->mscale_all_dim);
    if (r->original_max_position_embeddings > 0) {
        buf_printf(out, ", \"original_max_position_embeddings\": %u",
                   r->original_max_position_embeddings);
    }
    buf_append_str(out, "}");
}
