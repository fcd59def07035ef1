/* config.json is read twice: by jansson, because it must be JSON for everyone else who reads it,
 * and by the YAML reader (JSON is YAML), which knows the line of each value. Keys that have no
 * bearing on the model are ignored, as Hugging Face does; those that would change it in a way the
 * trainer does not follow are refused. */
#include "proto/model_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/buf_json.h"
#include "lib/yaml.h"

/* Bounds that keep every product of shapes, and the sum of all parameters, within 64 bits. */
#define HIDDEN_MAX  131072u
#define VOCAB_MAX   16777216u
#define HEADS_MAX   4096u
#define DIM_MAX     4096u
#define RANK_MAX    131072u
#define LAYERS_MAX  2048u
#define EXPERTS_MAX 16384u
#define SHARED_MAX  64u
#define MTP_MAX     16u

/* What is read and only compared. */
struct config_file {
    struct model_config c;
    int hidden_act, scoring_func, topk_method, model_type, attention_bias, rope_interleave;
    uint32_t moe_layer_freq, num_key_value_heads;
    double attention_dropout;
    const struct yaml_item *rope_scaling, *rope_parameters;
};

static const char *const only_silu[] = {"silu", NULL};
static const char *const only_sigmoid[] = {"sigmoid", NULL};
static const char *const only_noaux_tc[] = {"noaux_tc", NULL};
static const char *const only_false[] = {"false", NULL};
static const char *const only_true[] = {"true", NULL};
static const char *const model_types[] = {"deepseek_v3", "kimi_k2", NULL};

static int keep_item(const struct yaml_item *item, void *place, struct err *err)
{
    (void)err;
    *(const struct yaml_item **)place = item;
    return 0;
}

/* A token id, or a list of which the first counts. */
static int read_token(const struct yaml_item *item, void *place, struct err *err)
{
    if (item->kind == YAML_ITEM_LIST && item->count > 0) {
        item = item->items[0];
    }
    return yaml_to_i64(item, 0, VOCAB_MAX, place, err);
}

#define AT(member) .offset = offsetof(struct config_file, member)
#define WHOLE(k, least, most)                                                                      \
    {                                                                                              \
        .key = #k, .type = YAML_U32, AT(c.k), .low = (least), .high = (most)                       \
    }
#define REAL(k, least, most)                                                                       \
    {                                                                                              \
        .key = #k, .type = YAML_DOUBLE, AT(c.k), .min = (least), .max = (most)                     \
    }
#define TRUTH(k)                                                                                   \
    {                                                                                              \
        .key = #k, .type = YAML_BOOL, AT(c.k)                                                      \
    }
#define ONLY(k, list)                                                                              \
    {                                                                                              \
        .key = #k, .type = YAML_CHOICE, AT(k), .choices = list                                     \
    }

static const struct yaml_field config_fields[] = {
    WHOLE(vocab_size, 2, VOCAB_MAX),
    WHOLE(hidden_size, 1, HIDDEN_MAX),
    WHOLE(intermediate_size, 1, RANK_MAX),
    WHOLE(moe_intermediate_size, 1, RANK_MAX),
    WHOLE(num_hidden_layers, 1, LAYERS_MAX),
    WHOLE(first_k_dense_replace, 0, LAYERS_MAX),
    WHOLE(num_attention_heads, 1, HEADS_MAX),
    WHOLE(q_lora_rank, 0, RANK_MAX),
    WHOLE(kv_lora_rank, 1, RANK_MAX),
    WHOLE(qk_nope_head_dim, 1, DIM_MAX),
    WHOLE(qk_rope_head_dim, 2, DIM_MAX),
    WHOLE(v_head_dim, 1, DIM_MAX),
    WHOLE(n_routed_experts, 0, EXPERTS_MAX),
    WHOLE(n_shared_experts, 0, SHARED_MAX),
    WHOLE(num_experts_per_tok, 1, EXPERTS_MAX),
    WHOLE(n_group, 1, EXPERTS_MAX),
    WHOLE(topk_group, 1, EXPERTS_MAX),
    TRUTH(norm_topk_prob),
    REAL(routed_scaling_factor, 1e-6, 1e6),
    REAL(rms_norm_eps, 1e-30, 1),
    REAL(rope_theta, 1.0001, 1e15),
    WHOLE(max_position_embeddings, 1, MODEL_CONFIG_POSITIONS_MAX),
    WHOLE(num_nextn_predict_layers, 0, MTP_MAX),
    REAL(initializer_range, 0, 10),
    TRUTH(tie_word_embeddings),
    {.key = "bos_token_id", .type = YAML_CUSTOM, AT(c.bos_token_id), .read = read_token},
    {.key = "eos_token_id", .type = YAML_CUSTOM, AT(c.eos_token_id), .read = read_token},
    {.key = "rope_scaling", .type = YAML_CUSTOM, AT(rope_scaling), .read = keep_item},
    {.key = "rope_parameters", .type = YAML_CUSTOM, AT(rope_parameters), .read = keep_item},
    ONLY(model_type, model_types),
    ONLY(hidden_act, only_silu),
    ONLY(scoring_func, only_sigmoid),
    ONLY(topk_method, only_noaux_tc),
    ONLY(attention_bias, only_false),
    ONLY(rope_interleave, only_true),
    {.key = "moe_layer_freq", .type = YAML_U32, AT(moe_layer_freq), .low = 1, .high = 1},
    {.key = "num_key_value_heads",
     .type = YAML_U32,
     AT(num_key_value_heads),
     .low = 1,
     .high = HEADS_MAX},
    {.key = "attention_dropout", .type = YAML_DOUBLE, AT(attention_dropout), .min = 0, .max = 0},
    {.key = NULL}};

/* DeepseekV3Config's own. */
static const struct model_config published_defaults = {
    .vocab_size = 129280,
    .hidden_size = 7168,
    .intermediate_size = 18432,
    .moe_intermediate_size = 2048,
    .num_hidden_layers = 61,
    .first_k_dense_replace = 3,
    .num_attention_heads = 128,
    .q_lora_rank = 1536,
    .kv_lora_rank = 512,
    .qk_nope_head_dim = 128,
    .qk_rope_head_dim = 64,
    .v_head_dim = 128,
    .n_routed_experts = 256,
    .n_shared_experts = 1,
    .num_experts_per_tok = 8,
    .n_group = 8,
    .topk_group = 4,
    .norm_topk_prob = true,
    .routed_scaling_factor = 2.5,
    .rms_norm_eps = 1e-6,
    .rope_theta = 10000,
    .max_position_embeddings = 4096,
    .num_nextn_predict_layers = 1,
    .initializer_range = 0.02,
    .bos_token_id = 0,
    .eos_token_id = 1,
};

static bool is_null(const struct yaml_item *root, const char *key)
{
    for (size_t i = 0; i < root->count; i++) {
        if (strcmp(root->items[i]->key, key) == 0) {
            return root->items[i]->kind == YAML_ITEM_NULL;
        }
    }
    return false;
}

static const struct yaml_item *place_of(const struct yaml_item *root, const char *key)
{
    const struct yaml_item *item = yaml_get(root, key);
    return item != NULL ? item : root;
}

/* The router adds the two best scores of each group, so a group has two experts or more
 * (transformers fails on fewer). */
static int check_experts(const struct model_config *c, const struct yaml_item *root,
                         struct err *err)
{
    if (c->n_routed_experts % c->n_group != 0) {
        return yaml_refuse(place_of(root, "n_group"), err,
                           "n_group %u does not divide n_routed_experts %u", c->n_group,
                           c->n_routed_experts);
    }
    uint32_t group = c->n_routed_experts / c->n_group;
    if (group < 2) {
        return yaml_refuse(
            place_of(root, "n_group"), err,
            "n_group %u leaves groups of %u expert (allowed: 1 to %u; a group's score is "
            "the sum of its two best)",
            c->n_group, group, c->n_routed_experts / 2);
    }
    if (c->topk_group > c->n_group) {
        return yaml_refuse(place_of(root, "topk_group"), err,
                           "topk_group %u is over n_group %u (allowed: 1 to %u)", c->topk_group,
                           c->n_group, c->n_group);
    }
    if (c->num_experts_per_tok > c->topk_group * group) {
        return yaml_refuse(
            place_of(root, "num_experts_per_tok"), err,
            "num_experts_per_tok %u of the %u experts in %u of %u groups (allowed: 1 to "
            "%u)",
            c->num_experts_per_tok, c->topk_group * group, c->topk_group, c->n_group,
            c->topk_group * group);
    }
    return 0;
}

static int check(struct config_file *f, const struct yaml_item *root, struct err *err)
{
    struct model_config *c = &f->c;
    if (f->num_key_value_heads != 0 && f->num_key_value_heads != c->num_attention_heads) {
        return yaml_refuse(place_of(root, "num_key_value_heads"), err,
                           "%u differs from num_attention_heads (allowed: %u)",
                           f->num_key_value_heads, c->num_attention_heads);
    }
    if (c->qk_rope_head_dim % 2 != 0) {
        return yaml_refuse(place_of(root, "qk_rope_head_dim"), err,
                           "%u is odd (allowed: even numbers; pairs are rotated)",
                           c->qk_rope_head_dim);
    }
    if (c->bos_token_id >= (int64_t)c->vocab_size || c->eos_token_id >= (int64_t)c->vocab_size) {
        const char *key =
            c->bos_token_id >= (int64_t)c->vocab_size ? "bos_token_id" : "eos_token_id";
        return yaml_refuse(place_of(root, key), err,
                           "%s is outside the vocabulary (allowed: below %u)", key, c->vocab_size);
    }
    if (c->n_routed_experts == 0) {
        c->first_k_dense_replace = c->num_hidden_layers;
        return 0;
    }
    if (c->first_k_dense_replace > c->num_hidden_layers) {
        return yaml_refuse(place_of(root, "first_k_dense_replace"), err,
                           "first_k_dense_replace %u is over num_hidden_layers %u",
                           c->first_k_dense_replace, c->num_hidden_layers);
    }
    return check_experts(c, root, err);
}

static int read_config(struct config_file *f, const struct yaml_item *root, struct err *err)
{
    struct model_config *c = &f->c;
    TRY(yaml_read_open(root, config_fields, f, err));
    c->q_lora_rank = is_null(root, "q_lora_rank") ? 0 : c->q_lora_rank;
    c->n_routed_experts = is_null(root, "n_routed_experts") ? 0 : c->n_routed_experts;
    c->n_shared_experts = is_null(root, "n_shared_experts") ? 0 : c->n_shared_experts;
    c->bos_token_id = is_null(root, "bos_token_id") ? -1 : c->bos_token_id;
    c->eos_token_id = is_null(root, "eos_token_id") ? -1 : c->eos_token_id;
    const struct yaml_item *rope = f->rope_scaling != NULL ? f->rope_scaling : f->rope_parameters;
    if (rope != NULL) {
        TRY(rope_scaling_read_model(rope, &c->rope, &c->rope_theta, err));
    }
    return check(f, root, err);
}

int model_config_parse(struct model_config *c, const char *json, size_t json_bytes,
                       const char *name, struct err *err)
{
    json_error_t at;
    json_t *strict = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &at);
    *c = published_defaults;
    if (strict == NULL) {
        return err_set(err, ERR_INVALID, "%s:%d:%d: not JSON: %s", name, at.line, at.column,
                       at.text);
    }
    bool is_object = json_is_object(strict);
    json_decref(strict);
    if (!is_object) {
        return err_set(err, ERR_INVALID, "%s: not a JSON object", name);
    }
    struct yaml_tree tree;
    TRY(yaml_load(&tree, json, json_bytes, name, err));
    struct config_file f = {.c = published_defaults};
    int rc = read_config(&f, tree.root, err);
    yaml_fini(&tree);
    if (rc == 0) {
        *c = f.c;
    }
    return rc;
}

/* ---- writing */
static void put_u32(struct buf *out, const char *key, uint32_t value)
{
    buf_printf(out, ",\n  \"%s\": %u", key, value);
}

/* With a point, for readers that tell 1 from 1.0. */
static void put_real(struct buf *out, double value)
{
    size_t start = out->len;
    buf_json_double(out, value);
    if (strpbrk(buf_cstr(out) + start, ".e") == NULL) {
        buf_append_str(out, ".0");
    }
}

static void put_double(struct buf *out, const char *key, double value)
{
    buf_printf(out, ",\n  \"%s\": ", key);
    put_real(out, value);
}

static void put_bool(struct buf *out, const char *key, bool value)
{
    buf_printf(out, ",\n  \"%s\": %s", key, value ? "true" : "false");
}

static void put_or_null(struct buf *out, const char *key, int64_t value, int64_t null)
{
    if (value == null) {
        buf_printf(out, ",\n  \"%s\": null", key);
    } else {
        buf_printf(out, ",\n  \"%s\": %" PRId64, key, value);
    }
}

char *model_config_to_json(const struct model_config *c)
{
    struct buf out = {0};
    buf_append_str(&out, "{\n  \"architectures\": [\"DeepseekV3ForCausalLM\"],\n"
                         "  \"model_type\": \"deepseek_v3\"");
    put_u32(&out, "vocab_size", c->vocab_size);
    put_u32(&out, "hidden_size", c->hidden_size);
    put_u32(&out, "intermediate_size", c->intermediate_size);
    put_u32(&out, "moe_intermediate_size", c->moe_intermediate_size);
    put_u32(&out, "num_hidden_layers", c->num_hidden_layers);
    put_u32(&out, "first_k_dense_replace", c->first_k_dense_replace);
    put_u32(&out, "moe_layer_freq", 1);
    put_u32(&out, "num_attention_heads", c->num_attention_heads);
    put_u32(&out, "num_key_value_heads", c->num_attention_heads);
    put_or_null(&out, "q_lora_rank", c->q_lora_rank, 0);
    put_u32(&out, "kv_lora_rank", c->kv_lora_rank);
    put_u32(&out, "qk_nope_head_dim", c->qk_nope_head_dim);
    put_u32(&out, "qk_rope_head_dim", c->qk_rope_head_dim);
    put_u32(&out, "v_head_dim", c->v_head_dim);
    put_or_null(&out, "n_routed_experts", c->n_routed_experts, 0);
    put_u32(&out, "n_shared_experts", c->n_shared_experts);
    put_u32(&out, "num_experts_per_tok", c->num_experts_per_tok);
    put_u32(&out, "n_group", c->n_group);
    put_u32(&out, "topk_group", c->topk_group);
    put_bool(&out, "norm_topk_prob", c->norm_topk_prob);
    put_double(&out, "routed_scaling_factor", c->routed_scaling_factor);
    buf_append_str(&out, ",\n  \"scoring_func\": \"sigmoid\",\n  \"topk_method\": \"noaux_tc\",\n"
                         "  \"hidden_act\": \"silu\"");
    put_double(&out, "rms_norm_eps", c->rms_norm_eps);
    put_double(&out, "rope_theta", c->rope_theta);
    buf_append_str(&out, ",\n  \"rope_scaling\": ");
    rope_scaling_json(&out, &c->rope);
    put_u32(&out, "max_position_embeddings", c->max_position_embeddings);
    put_u32(&out, "num_nextn_predict_layers", c->num_nextn_predict_layers);
    put_double(&out, "initializer_range", c->initializer_range);
    put_bool(&out, "attention_bias", false);
    put_double(&out, "attention_dropout", 0);
    put_bool(&out, "tie_word_embeddings", c->tie_word_embeddings);
    put_or_null(&out, "bos_token_id", c->bos_token_id, -1);
    put_or_null(&out, "eos_token_id", c->eos_token_id, -1);
    put_bool(&out, "use_cache", true);
    buf_append_str(&out, "\n}\n");
    buf_cstr(&out);
    return (char *)out.data; /* the buffer's memory, NUL-terminated, is the caller's now */
}
