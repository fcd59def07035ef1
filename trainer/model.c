/* What a rank holds of the model: embedding, decoder layers, head, MTP modules, and their memory.
 */
#include "trainer/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/model_check.h"
#include "trainer/model_parts.h"
#include "trainer/overlap.h"
#include "trainer/rope.h"

/* ---- building */

static struct router *router_of(struct model *m, uint32_t layer)
{
    size_t before = 0;
    for (uint32_t l = 0; l < layer; l++) {
        before += model_config_is_moe(&m->config, l);
    }
    return model_config_is_moe(&m->config, layer) ? &m->router[before] : NULL;
}

static void build_embedding(struct model *m)
{
    params_linear(&m->params, &m->embed, LINEAR_HIGH, -1, "model.", "embed_tokens.weight",
                  m->config.vocab_size, m->config.hidden_size);
}

/* The last stage multiplies with the embedding when it is the head's matrix, and looks tokens up in
 * it for the MTP modules. Where the first stage is on another rank it has a copy. */
static void build_embedding_copy(struct model *m)
{
    const struct model_config *c = &m->config;
    if (m->stage[0].first || (!c->tie_word_embeddings && c->num_nextn_predict_layers == 0)) {
        return;
    }
    m->embed_is_copy = true;
    m->params.copying = true;
    build_embedding(m);
    m->params.copying = false;
}

static void build_heads(struct model *m, struct slot *s, struct builder *b)
{
    const struct model_config *c = &m->config;
    struct params *p = &m->params;
    size_t rows = m->shape.rows, hidden = c->hidden_size;
    params_vector(p, &m->norm, "model.", "norm.weight", c->hidden_size);
    params_align(p);
    if (c->tie_word_embeddings) {
        m->lm_head = m->embed;
    } else {
        m->lm_head = (struct linear){0};
        params_linear(p, &m->lm_head, LINEAR_HIGH, -1, "", "lm_head.weight", c->vocab_size,
                      c->hidden_size);
    }
    for (uint32_t k = 0; k < c->num_nextn_predict_layers; k++) {
        mtp_build(&s->mtp[k], b, k + 1, router_of(m, c->num_hidden_layers + k));
    }
    params_align(p);
    head_build(&m->head, b, &m->lm_head);
    s->hidden = arena_mat(&m->keep, rows, hidden);
    s->rstd = arena_floats(&m->keep, rows);
    s->d = arena_mat(&m->keep, rows, hidden);
    s->dhidden = arena_mat(&m->keep, rows, hidden);
}

static void build_slot(struct model *m, const struct stage *stage, struct slot *s,
                       struct builder *b)
{
    size_t rows = m->shape.rows;
    s->later.kept_begin = m->keep.base + m->keep.used;
    if (stage->first || stage->last) {
        s->token = arena_take(&m->keep, rows * sizeof *s->token);
        s->target = arena_take(&m->keep, rows * sizeof *s->target);
    }
    for (uint32_t i = 0; i < stage->what.layers; i++) {
        uint32_t layer = stage->what.first_layer + i;
        block_build(&s->block[i], b, layer, router_of(m, layer));
    }
    s->out = arena_mat(&m->keep, rows, m->config.hidden_size);
    if (stage->last) {
        build_heads(m, s, b);
    }
    s->later.kept_end = m->keep.base + m->keep.used;
}

static size_t most_sequences(const struct model_options *o)
{
    uint32_t context = o->shortest_context > 0 ? o->shortest_context : o->sequence_length;
    return (size_t)o->micro_batch * (o->sequence_length / context);
}

/* Runs twice: to count, and with memory. */
static void build(struct model *m)
{
    const struct mesh *mesh = m->options.mesh;
    struct params *p = &m->params;
    struct builder b = {
        .config = &m->config,
        .mesh = mesh,
        .params = p,
        .keep = &m->keep,
        .scratch = &m->scratch,
        .host = &m->host,
        .recipe = m->params.recipe,
        .op = m->options.op,
        .shape = m->shape,
        .sequences = most_sequences(&m->options),
    };
    params_begin(p);
    m->keep.used = m->scratch.used = m->host.used = 0;
    m->host_token = arena_take(&m->host, m->shape.rows * sizeof *m->host_token);
    m->ctx.rope = arena_floats(&m->keep, m->shape.seq * m->config.qk_rope_head_dim);
    m->embed = (struct linear){0};
    for (uint32_t i = 0; i < m->stages; i++) {
        const struct stage *stage = &m->stage[i];
        if (stage->first) {
            build_embedding(m);
        }
        if (stage->last) {
            build_embedding_copy(m);
        }
        struct params_mark mark = params_mark(p);
        for (uint32_t k = 0; k < stage->what.slots; k++) {
            params_rewind(p, &mark); /* each slot's layers find the same tensors */
            build_slot(m, stage, &stage->slot[k], &b);
        }
    }
    params_pad(p, mesh_batch_ways(mesh), mesh->data);
    m->ctx.operand_dy = arena_floats(&m->keep, b.operand_dy);
    m->ctx.operand_x = arena_floats(&m->keep, b.operand_x);
}

static void create_stages(struct model *m)
{
    const struct model_options *o = &m->options;
    const struct model_stage whole = {.layers = m->config.num_hidden_layers, .slots = 1};
    m->stages = o->stages > 0 ? o->stages : 1;
    for (uint32_t i = 0; i < m->stages; i++) {
        struct stage *s = &m->stage[i];
        s->what = o->stages > 0 ? o->stage[i] : whole;
        s->first = s->what.first_layer == 0;
        s->last = s->what.first_layer + s->what.layers == m->config.num_hidden_layers;
        s->slot = mem_alloc_array(s->what.slots, sizeof *s->slot);
        for (uint32_t k = 0; k < s->what.slots; k++) {
            s->slot[k].later.op = o->op;
            s->slot[k].block = mem_alloc_array(s->what.layers, sizeof *s->slot[k].block);
            s->slot[k].mtp = s->last ? mem_alloc_array(m->config.num_nextn_predict_layers,
                                                       sizeof *s->slot[k].mtp)
                                     : NULL;
        }
    }
}

static void destroy_stages(struct model *m)
{
    for (uint32_t i = 0; i < m->stages; i++) {
        struct stage *s = &m->stage[i];
        for (uint32_t k = 0; k < s->what.slots; k++) {
            later_fini(&s->slot[k].later);
            free(s->slot[k].block);
            free(s->slot[k].mtp);
        }
        free(s->slot);
    }
}

static void create_routers(struct model *m)
{
    const struct model_config *c = &m->config;
    uint32_t layers = c->num_hidden_layers + c->num_nextn_predict_layers;
    m->router = mem_alloc_array(layers, sizeof *m->router);
    for (uint32_t l = 0; l < layers; l++) {
        if (!model_config_is_moe(c, l)) {
            continue;
        }
        struct router *r = &m->router[m->router_count++];
        snprintf(r->name, sizeof r->name, "model.layers.%u.mlp.gate.e_score_correction_bias", l);
        r->experts = c->n_routed_experts;
        r->bias = mem_alloc_array(r->experts, sizeof *r->bias);
        r->load = mem_alloc_array(r->experts, sizeof *r->load);
    }
}

static void fill_rope(struct model *m)
{
    size_t count = m->shape.seq * m->config.qk_rope_head_dim;
    float *table = mem_alloc_array(count, sizeof *table);
    rope_table(&m->config, m->shape.seq, table);
    m->options.op->copy_from_host((float *)(uintptr_t)m->ctx.rope, table, count * sizeof *table);
    free(table);
}

int model_create(struct model **model, const struct model_options *options, struct err *err)
{
    const struct op_table *op = options->op;
    TRY(model_check(options, err));
    struct model *m = mem_alloc(sizeof *m);
    m->options = *options;
    m->config = *options->config;
    m->options.config = &m->config;
    m->shape = (struct shape){options->micro_batch, options->sequence_length,
                              (size_t)options->micro_batch * options->sequence_length};
    m->params.op = op;
    m->params.recipe = options->recipe != NULL ? *options->recipe : recipe_of(options->precision);
    m->options.recipe = NULL;
    m->ctx = (struct ctx){
        .op = op,
        .config = &m->config,
        .recipe = m->params.recipe,
        .comm = options->expert_comm,
        .beside = options->mesh->expert > 1 ? overlap_create() : NULL,
        .balance_scale = (float)(options->balance_alpha * options->sequence_length),
        .softmax_scale = (float)rope_softmax_scale(&m->config),
    };
    create_stages(m);
    create_routers(m);
    build(m);
    m->keep.base = op->alloc(m->keep.size);
    m->scratch.base = op->alloc(m->scratch.size);
    m->host.base = mem_alloc(m->host.size);
    params_allocate(&m->params);
    build(m);
    fill_rope(m);
    *model = m;
    return 0;
}

void model_destroy(struct model *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->router_count; i++) {
        free(m->router[i].bias);
        free(m->router[i].load);
    }
    free(m->router);
    overlap_destroy(m->ctx.beside);
    destroy_stages(m);
    m->options.op->release(m->keep.base);
    m->options.op->release(m->scratch.base);
    free(m->host.base);
    params_fini(&m->params);
    free(m);
}

/* ---- what others may touch */

struct param *model_params(struct model *m, size_t *count)
{
    *count = m->params.count;
    return m->params.item;
}

struct param_range model_param_range(struct model *m, bool experts)
{
    const struct param_memory *memory = experts ? &m->params.expert : &m->params.dense;
    return (struct param_range){(float *)(void *)memory->weight.base,
                                (float *)(void *)memory->grad.base,
                                memory->weight.used / sizeof(float)};
}

const struct param *model_embedding(struct model *m, bool *is_copy)
{
    for (size_t i = 0; i < m->params.count; i++) {
        if (m->params.item[i].weight == m->embed.w && m->embed.w != NULL) {
            *is_copy = m->embed_is_copy;
            return &m->params.item[i];
        }
    }
    return NULL;
}

struct router *model_routers(struct model *m, size_t *count)
{
    *count = m->router_count;
    return m->router;
}

void model_router_reset(struct model *m)
{
    for (size_t i = 0; i < m->router_count; i++) {
        memset(m->router[i].load, 0, m->router[i].experts * sizeof *m->router[i].load);
    }
}

size_t model_bytes(const struct model *m)
{
    const struct params *p = &m->params;
    return m->keep.size + m->scratch.size + m->host.size + params_bytes(p);
}

void model_init(struct model *m)
{
    params_init_weights(&m->params, m->options.seed, m->options.init_std);
    model_refresh(m);
}

void model_refresh(struct model *m)
{
    params_refresh(&m->params);
}

void model_set_context(struct model *m, uint32_t context)
{
    const struct model_options *o = &m->options;
    assert(context > 0 && o->sequence_length % context == 0);
    m->shape.seq = context;
    m->shape.batch = m->shape.rows / context;
    assert(m->shape.batch <= most_sequences(o));
    m->ctx.balance_scale = (float)(o->balance_alpha * context);
    for (uint32_t i = 0; i < m->stages; i++) {
        for (uint32_t k = 0; m->stage[i].last && k < m->stage[i].what.slots; k++) {
            for (uint32_t d = 0; d < m->config.num_nextn_predict_layers; d++) {
                mtp_set_shape(&m->stage[i].slot[k].mtp[d], m->shape);
            }
        }
    }
}

void model_set_mtp_lambda(struct model *m, double lambda)
{
    m->options.mtp_lambda = lambda;
}

void model_zero_grad(struct model *m)
{
    params_zero_grad(&m->params);
}
