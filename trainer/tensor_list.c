#include "trainer/tensor_list.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

/* Where the next tensors belong. */
struct place {
    struct tensor_list *list;
    const struct model_config *config;
    int32_t layer, expert;
    char prefix[TENSOR_NAME_BYTES];
};

static void set_prefix(struct place *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void set_prefix(struct place *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(p->prefix, sizeof p->prefix, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof p->prefix);
}

static void add(struct place *p, const char *name, enum tensor_kind kind, uint32_t rows,
                uint32_t cols)
{
    struct tensor_list *l = p->list;
    void *items = l->item;
    mem_grow(&items, &l->capacity, l->count + 1, sizeof *l->item);
    l->item = items;
    struct tensor *t = &l->item[l->count++];
    *t = (struct tensor){
        .rows = rows, .cols = cols, .kind = kind, .layer = p->layer, .expert = p->expert};
    int n = snprintf(t->name, sizeof t->name, "%s%s", p->prefix, name);
    assert(n > 0 && (size_t)n < sizeof t->name);
}

static void add_vector(struct place *p, const char *name, enum tensor_kind kind, uint32_t rows)
{
    add(p, name, kind, rows, 1);
    p->list->item[p->list->count - 1].is_vector = true;
}

static void add_attention(struct place *p)
{
    const struct model_config *c = p->config;
    uint32_t heads = c->num_attention_heads;
    uint32_t q_rows = heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    set_prefix(p, "model.layers.%d.self_attn.", p->layer);
    if (c->q_lora_rank > 0) {
        add(p, "q_a_proj.weight", TENSOR_RECIPE, c->q_lora_rank, c->hidden_size);
        add_vector(p, "q_a_layernorm.weight", TENSOR_NORM, c->q_lora_rank);
        add(p, "q_b_proj.weight", TENSOR_RECIPE, q_rows, c->q_lora_rank);
    } else {
        add(p, "q_proj.weight", TENSOR_RECIPE, q_rows, c->hidden_size);
    }
    add(p, "kv_a_proj_with_mqa.weight", TENSOR_RECIPE, c->kv_lora_rank + c->qk_rope_head_dim,
        c->hidden_size);
    add_vector(p, "kv_a_layernorm.weight", TENSOR_NORM, c->kv_lora_rank);
    add(p, "kv_b_proj.weight", TENSOR_RECIPE, heads * (c->qk_nope_head_dim + c->v_head_dim),
        c->kv_lora_rank);
    add(p, "o_proj.weight", TENSOR_RECIPE, c->hidden_size, heads * c->v_head_dim);
}

static void add_mlp(struct place *p, uint32_t width)
{
    uint32_t hidden = p->config->hidden_size;
    add(p, "gate_proj.weight", TENSOR_RECIPE, width, hidden);
    add(p, "up_proj.weight", TENSOR_RECIPE, width, hidden);
    add(p, "down_proj.weight", TENSOR_RECIPE, hidden, width);
}

static void add_moe(struct place *p)
{
    const struct model_config *c = p->config;
    set_prefix(p, "model.layers.%d.mlp.gate.", p->layer);
    add(p, "weight", TENSOR_GATE, c->n_routed_experts, c->hidden_size);
    add_vector(p, "e_score_correction_bias", TENSOR_BIAS, c->n_routed_experts);
    for (uint32_t e = 0; e < c->n_routed_experts; e++) {
        p->expert = (int32_t)e;
        set_prefix(p, "model.layers.%d.mlp.experts.%u.", p->layer, e);
        add_mlp(p, c->moe_intermediate_size);
    }
    p->expert = -1;
    if (c->n_shared_experts > 0) {
        set_prefix(p, "model.layers.%d.mlp.shared_experts.", p->layer);
        add_mlp(p, c->n_shared_experts * c->moe_intermediate_size);
    }
}

static void add_layer(struct place *p, uint32_t layer)
{
    uint32_t hidden = p->config->hidden_size;
    p->layer = (int32_t)layer;
    set_prefix(p, "model.layers.%u.", layer);
    add_vector(p, "input_layernorm.weight", TENSOR_NORM, hidden);
    add_attention(p);
    set_prefix(p, "model.layers.%u.", layer);
    add_vector(p, "post_attention_layernorm.weight", TENSOR_NORM, hidden);
    if (model_config_is_moe(p->config, layer)) {
        add_moe(p);
    } else {
        set_prefix(p, "model.layers.%u.mlp.", layer);
        add_mlp(p, p->config->intermediate_size);
    }
}

static void add_mtp(struct place *p, uint32_t layer)
{
    uint32_t hidden = p->config->hidden_size;
    p->layer = (int32_t)layer;
    set_prefix(p, "model.layers.%u.", layer);
    add_vector(p, "enorm.weight", TENSOR_NORM, hidden);
    add_vector(p, "hnorm.weight", TENSOR_NORM, hidden);
    add(p, "eh_proj.weight", TENSOR_HIGH, hidden, 2 * hidden);
    add_layer(p, layer);
    set_prefix(p, "model.layers.%u.", layer);
    add_vector(p, "shared_head.norm.weight", TENSOR_NORM, hidden);
}

static int by_name(const void *a, const void *b, void *items)
{
    const struct tensor *item = items;
    return strcmp(item[*(const uint32_t *)a].name, item[*(const uint32_t *)b].name);
}

void tensor_list_init(struct tensor_list *l, const struct model_config *c)
{
    *l = (struct tensor_list){0};
    struct place p = {.list = l, .config = c, .layer = -1, .expert = -1};
    add(&p, "model.embed_tokens.weight", TENSOR_HIGH, c->vocab_size, c->hidden_size);
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        add_layer(&p, i);
    }
    p.layer = -1;
    p.prefix[0] = 0;
    add_vector(&p, "model.norm.weight", TENSOR_NORM, c->hidden_size);
    if (!c->tie_word_embeddings) {
        add(&p, "lm_head.weight", TENSOR_HIGH, c->vocab_size, c->hidden_size);
    }
    for (uint32_t k = 0; k < c->num_nextn_predict_layers; k++) {
        add_mtp(&p, c->num_hidden_layers + k);
    }
    l->by_name = mem_alloc_array(l->count, sizeof *l->by_name);
    for (size_t i = 0; i < l->count; i++) {
        l->by_name[i] = (uint32_t)i;
    }
    qsort_r(l->by_name, l->count, sizeof *l->by_name, by_name, l->item);
}

void tensor_list_fini(struct tensor_list *l)
{
    free(l->item);
    free(l->by_name);
    *l = (struct tensor_list){0};
}

const struct tensor *tensor_list_find(const struct tensor_list *l, const char *name)
{
    size_t low = 0;
    size_t high = l->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct tensor *t = &l->item[l->by_name[mid]];
        int order = strcmp(name, t->name);
        if (order == 0) {
            return t;
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}
