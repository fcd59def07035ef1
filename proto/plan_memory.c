#include "proto/plan_memory.h"

#include <inttypes.h>
#include <string.h>

#include "proto/pipeline_schedule.h"

enum { TILE = 128, SCALE_BYTES = 4, LOGITS_CHUNK = 1 << 27 };

/* ---- widths */

/* `count` numbers with a scale for each 128 of them where the format has scales. */
static double cache_bytes(enum recipe_cache format, double count)
{
    switch (format) {
    case RECIPE_CACHE_FP32:
        return 4 * count;
    case RECIPE_CACHE_BF16:
        return 2 * count;
    case RECIPE_CACHE_FP8:
        return count * (1 + (double)SCALE_BYTES / TILE);
    case RECIPE_CACHE_E5M6:
        return count * (1.5 + 1.0 / TILE); /* twelve bits; the scale is an exponent */
    }
    return 0;
}

/* enum precision is the beginning of enum recipe_cache. */
static double stored(enum precision precision, double count)
{
    return cache_bytes((enum recipe_cache)precision, count);
}

/* ---- parameters */

struct params {
    double linears; /* of the recipe: FP8 where it says so */
    double others;  /* embedding, head, gate, eh_proj */
    double vectors; /* norms, router biases */
    double experts; /* of the recipe, one rank's */
};

static void add_params(struct params *sum, struct params p)
{
    sum->linears += p.linears;
    sum->others += p.others;
    sum->vectors += p.vectors;
    sum->experts += p.experts;
}

static double count_of(struct params p)
{
    return p.linears + p.others + p.vectors + p.experts;
}

struct dims {
    double hidden, heads, qk, nope, v, q_rank, kv_rank, rope;
    double latents; /* columns of what the down-projections give */
    double vocab, experts, local, top_k, width, shared_width, dense_width;
};

static struct dims dims_of(const struct plan_run *run)
{
    const struct model_config *c = run->model;
    struct dims d = {
        .hidden = c->hidden_size,
        .heads = c->num_attention_heads,
        .qk = c->qk_nope_head_dim + c->qk_rope_head_dim,
        .nope = c->qk_nope_head_dim,
        .v = c->v_head_dim,
        .q_rank = c->q_lora_rank,
        .kv_rank = c->kv_lora_rank,
        .rope = c->qk_rope_head_dim,
        .vocab = c->vocab_size,
        .experts = c->n_routed_experts,
        .local = (double)c->n_routed_experts / run->expert,
        .top_k = c->num_experts_per_tok,
        .width = c->moe_intermediate_size,
        .shared_width = (double)c->n_shared_experts * c->moe_intermediate_size,
        .dense_width = c->intermediate_size,
    };
    d.latents = (d.q_rank > 0 ? d.q_rank : d.heads * d.qk) + d.kv_rank + d.rope;
    return d;
}

static struct params layer_params(const struct plan_run *run, const struct dims *d, uint32_t layer)
{
    struct params p = {0};
    p.linears = d->hidden * d->latents + d->q_rank * d->heads * d->qk +
                d->kv_rank * d->heads * (d->nope + d->v) + d->heads * d->v * d->hidden;
    p.vectors = 2 * d->hidden + d->q_rank + d->kv_rank;
    if (model_config_is_moe(run->model, layer)) {
        p.linears += 3 * d->hidden * d->shared_width;
        p.experts = 3 * d->hidden * d->width * d->local;
        p.others = d->hidden * d->experts;
        p.vectors += d->experts;
    } else {
        p.linears += 3 * d->hidden * d->dense_width;
    }
    return p;
}

/* Embedding and head where they are the model's own, and the MTP modules of the last stage. */
static struct params ends_params(const struct plan_run *run, const struct dims *d, bool first,
                                 bool last)
{
    const struct model_config *c = run->model;
    struct params p = {0};
    if (first) {
        p.others += d->vocab * d->hidden;
    }
    if (last) {
        p.others += c->tie_word_embeddings ? 0 : d->vocab * d->hidden;
        p.vectors += d->hidden;
        for (uint32_t k = 0; k < c->num_nextn_predict_layers; k++) {
            add_params(&p, layer_params(run, d, c->num_hidden_layers + k));
            p.others += 2 * d->hidden * d->hidden;
            p.vectors += 3 * d->hidden;
        }
    }
    return p;
}

/* What the products read, on the device. */
static double weight_bytes(const struct plan_run *run, struct params p)
{
    double linears = p.linears + p.experts;
    const struct recipe *r = &run->recipe;
    double bytes = 4 * p.vectors;
    bytes += r->rest == PRECISION_FP32 && r->fprop == PRECISION_FP32 ? 0 : 2 * p.others;
    if (r->fprop == PRECISION_FP8) {
        bytes += linears * (1 + (double)SCALE_BYTES / (TILE * TILE));
    }
    if (r->dgrad == PRECISION_FP8) {
        bytes += linears * (1 + (double)SCALE_BYTES / (TILE * TILE));
    }
    if (r->fprop == PRECISION_BF16 || r->dgrad == PRECISION_BF16) {
        bytes += 2 * linears;
    }
    return bytes;
}

/* Parameters whose optimiser state one rank has. */
static double share_of(const struct plan_run *run, struct params p)
{
    double dense = p.linears + p.others + p.vectors;
    return dense / ((double)run->data * run->expert) + p.experts / run->data;
}

static double parted(const struct plan_run *run, struct params p)
{
    return run->zero == 0 ? p.linears + p.others + p.vectors + p.experts : share_of(run, p);
}

/* Master weights and moments of one rank. Where products read FP32 the master is what they read,
 * and whole. */
static double optimizer_bytes(const struct plan_run *run, struct params p)
{
    const struct recipe *r = &run->recipe;
    bool whole = r->fprop == PRECISION_FP32 || r->dgrad == PRECISION_FP32;
    double moment = r->moments == PRECISION_BF16 ? 2 : 4;
    return 4 * (whole ? count_of(p) : parted(run, p)) + 2 * moment * parted(run, p);
}

/* ---- activations of a token */

static double kept_of_attention(const struct recipe *r, const struct dims *d)
{
    double bytes = stored(r->rest, d->hidden + d->latents) + 4 * (d->heads + 3);
    bytes += cache_bytes(r->attention_output, d->heads * d->v);
    if (r->recompute_norm == RECIPE_NO) {
        bytes += stored(r->fprop, d->hidden + d->q_rank + d->kv_rank);
    }
    if (r->recompute_mla_up == RECIPE_NO) {
        bytes += stored(r->rest, d->heads * ((d->q_rank > 0 ? d->qk : 0) + d->qk + d->v));
    }
    return bytes;
}

static double kept_of_swiglu(const struct recipe *r, double width)
{
    double bytes = stored(r->swiglu_input, 2 * width);
    return r->recompute_swiglu == RECIPE_NO ? bytes + stored(r->fprop, width) : bytes;
}

/* Rows that reach this rank's experts, for one token of its own. */
static double rows_of(const struct plan_run *run, const struct dims *d)
{
    double headroom = run->expert > 1 ? 1 + PLAN_EXPERT_HEADROOM : 1;
    return d->top_k * headroom;
}

static double kept_of_layer(const struct plan_run *run, const struct dims *d, uint32_t layer)
{
    const struct recipe *r = &run->recipe;
    double bytes = kept_of_attention(r, d) + stored(r->rest, d->hidden) + 4;
    if (r->recompute_norm == RECIPE_NO) {
        bytes += stored(r->fprop, d->hidden);
    }
    if (!model_config_is_moe(run->model, layer)) {
        return bytes + kept_of_swiglu(r, d->dense_width);
    }
    double rows = rows_of(run, d);
    bytes += 4 * d->experts + 12 * d->top_k; /* scores; expert, weight and place of each choice */
    bytes += rows * (stored(r->dispatch, d->hidden) + kept_of_swiglu(r, d->width) + 4);
    return bytes + kept_of_swiglu(r, d->shared_width);
}

/* Gradients of the outputs of a layer's Linears, which wait for Wgrad after a split pass. */
static double split_of_layer(const struct plan_run *run, const struct dims *d, uint32_t layer)
{
    double outputs = d->latents + (d->q_rank > 0 ? d->heads * d->qk : 0) +
                     d->heads * (d->nope + d->v) + d->hidden;
    if (model_config_is_moe(run->model, layer)) {
        outputs += 2 * d->shared_width + d->hidden;
        outputs += rows_of(run, d) * (2 * d->width + d->hidden);
    } else {
        outputs += 2 * d->dense_width + d->hidden;
    }
    return stored(run->recipe.dgrad, outputs);
}

/* While a layer's passes run: the attention's operands and their gradients, or the experts' rows,
 * in the stored precision, and Wgrad's operands in 128x1. */
static double work_of_layer(const struct plan_run *run, const struct dims *d, uint32_t layer)
{
    const struct recipe *r = &run->recipe;
    double qkv = d->heads * (2 * d->qk + d->nope + d->v);
    double attention = stored(r->rest, 2 * qkv + 2 * d->heads * d->v + 2 * d->latents);
    attention += 4 * d->heads * d->qk; /* the gradient of q is summed in FP32 */
    double rows = 1, width = d->dense_width;
    if (model_config_is_moe(run->model, layer)) {
        rows = rows_of(run, d);
        width = d->width;
    }
    double ffn = rows * (stored(r->rest, 2 * d->hidden + 5 * width) +
                         stored(r->wgrad, 2 * d->hidden + 3 * width));
    return stored(r->rest, 3 * d->hidden) + (attention > ffn ? attention : ffn);
}

/* ---- a rank */

struct stage_bytes {
    double kept, split; /* of one micro-batch */
};

/* The most that is kept at once while a rank works through its schedule. */
static int peak_of(const struct plan_run *run, uint32_t index, const struct stage_bytes *stage,
                   struct plan_memory *out, double *peak, struct err *err)
{
    struct pipeline_schedule s = {0};
    double now = 0;
    uint32_t passes = 0;
    TRY(pipeline_schedule_init(&s, run->kind, run->pipeline, index, run->micros, err));
    *peak = 0;
    for (size_t i = 0; i < s.count; i++) {
        const struct stage_bytes *b = &stage[s.action[i].stage];
        switch (s.action[i].op) {
        case PIPELINE_F:
            now += b->kept;
            passes++;
            break;
        case PIPELINE_B:
            now -= b->kept;
            passes--;
            break;
        case PIPELINE_I:
            now += b->split;
            break;
        case PIPELINE_W:
            now -= b->kept + b->split;
            passes--;
            break;
        }
        if (now > *peak) {
            *peak = now;
            out->passes = passes;
        }
    }
    pipeline_schedule_fini(&s);
    return 0;
}

static int check(const struct plan_run *run, uint32_t index, struct err *err)
{
    const struct model_config *c = run->model;
    uint32_t stages = pipeline_stages(run->kind, run->pipeline);
    if (index >= run->pipeline) {
        return err_set(err, ERR_CONFIG, "no pipeline index %" PRIu32 " in a pipeline of %" PRIu32,
                       index, run->pipeline);
    }
    if (stages > c->num_hidden_layers) {
        return err_set(err, ERR_CONFIG,
                       "a pipeline of %" PRIu32 " ranks has %" PRIu32
                       " stages, more than the model's %" PRIu32 " layers",
                       run->pipeline, stages, c->num_hidden_layers);
    }
    if (c->n_routed_experts % run->expert != 0) {
        return err_set(err, ERR_CONFIG, "%" PRIu32 " experts do not divide over %" PRIu32 " ranks",
                       c->n_routed_experts, run->expert);
    }
    return 0;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

int plan_memory(const struct plan_run *run, uint32_t pipeline_index, struct plan_memory *out,
                struct err *err)
{
    const struct model_config *c = run->model;
    struct dims d = dims_of(run);
    double tokens = (double)run->micro_batch * run->sequence_length;
    struct stage_bytes stage[PIPELINE_STAGES_MAX] = {{0}};
    struct params params = {0};
    double work = 0, copy = 0;
    memset(out, 0, sizeof *out);
    TRY(check(run, pipeline_index, err));
    uint32_t stages = pipeline_stages(run->kind, run->pipeline);
    out->stage_count = pipeline_stages_here(run->kind);
    bool has_first = false, has_last = false;
    for (uint32_t i = 0; i < out->stage_count; i++) {
        uint32_t number = pipeline_stage(run->kind, run->pipeline, pipeline_index, i);
        uint32_t first, count;
        bool last = number == stages - 1;
        pipeline_layers(c->num_hidden_layers, stages, number, &first, &count);
        out->first_layer[i] = first;
        out->layers[i] = count;
        count += last ? c->num_nextn_predict_layers : 0;
        for (uint32_t l = first; l < first + count; l++) {
            if (l < c->num_hidden_layers) {
                add_params(&params, layer_params(run, &d, l));
            } else { /* an MTP module joins two hidden states */
                stage[i].kept += tokens * stored(run->recipe.rest, 2 * d.hidden);
            }
            stage[i].kept += tokens * kept_of_layer(run, &d, l);
            stage[i].split += tokens * split_of_layer(run, &d, l);
            work = larger(work, tokens * work_of_layer(run, &d, l));
        }
        add_params(&params, ends_params(run, &d, number == 0, last));
        has_first |= number == 0;
        has_last |= last;
    }
    if (has_last && !has_first && (c->num_nextn_predict_layers > 0 || c->tie_word_embeddings)) {
        copy = d.vocab * d.hidden; /* of the first stage's embedding: weight and gradient */
    }
    if (has_last) { /* logits a chunk at a time, FP32 and as the operand of their products */
        double chunk = larger(1, LOGITS_CHUNK / d.vocab);
        work += (chunk < tokens ? chunk : tokens) * d.vocab * 6;
    }
    double peak;
    TRY(peak_of(run, pipeline_index, stage, out, &peak, err));
    double count = count_of(params);
    double gradients = 4 * (count + copy);
    out->params = (uint64_t)count;
    out->weights = (uint64_t)(weight_bytes(run, params) + 2 * copy);
    out->gradients = (uint64_t)gradients;
    out->optimizer = (uint64_t)optimizer_bytes(run, params);
    out->activations = (uint64_t)peak;
    out->workspace = (uint64_t)(run->kind == PIPELINE_DUALPIPEV ? 2 * work : work);
    if (run->data * run->expert > 1) {
        double bucket = gradients < PLAN_BUCKET_BYTES ? gradients : PLAN_BUCKET_BYTES;
        out->workspace += (uint64_t)(2 * bucket);
    }
    out->reserved = PLAN_RESERVED_BYTES;
    out->total = out->weights + out->gradients + out->optimizer + out->activations +
                 out->workspace + out->reserved;
    double saved = 3 + run->ema; /* weights, moments, average: each element by one of its ranks */
    out->host = (uint64_t)(4 * (saved * share_of(run, params) + run->ema * parted(run, params)));
    return 0;
}

struct plan_run plan_run_of(const struct train_spec *train, const struct model_config *model,
                            uint32_t ranks)
{
    uint32_t columns = train->pipeline * train->expert;
    uint32_t data = columns > 0 && ranks > columns ? ranks / columns : 1;
    uint32_t micro = train->micro_batch > 0 ? train->micro_batch : 1;
    return (struct plan_run){
        .model = model,
        .recipe = train->recipe,
        .kind = train->pipeline_kind,
        .pipeline = train->pipeline,
        .expert = train->expert,
        .data = data,
        .zero = train->zero,
        .sequence_length = train->sequence_length,
        .micro_batch = micro,
        .micros = train->global_batch / (data * train->expert * micro),
        .ema = train->ema > 0,
    };
}
