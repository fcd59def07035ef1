#include "proto/plan_run.h"

#include <inttypes.h>
#include <math.h>

#include "proto/pipeline_schedule.h"

/* Norms and router biases: they take no product. */
static double vectors_of(const struct model_config *c)
{
    double sum = c->hidden_size;
    for (uint32_t l = 0; l < c->num_hidden_layers; l++) {
        sum += 2.0 * c->hidden_size + c->q_lora_rank + c->kv_lora_rank;
        sum += model_config_is_moe(c, l) ? c->n_routed_experts : 0;
    }
    return sum;
}

double plan_flops_per_token(const struct model_config *c, uint32_t sequence_length)
{
    double table = (double)c->vocab_size * c->hidden_size;
    double products = (double)model_config_params_active(c) - vectors_of(c);
    products -= c->tie_word_embeddings ? 0 : table;
    double heads = c->num_attention_heads;
    double head = c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim;
    return 6 * products + 3.0 * c->num_hidden_layers * sequence_length * heads * head;
}

static double bubble_share(const struct plan_run *run)
{
    double stages = pipeline_stages_here(run->kind), ranks = run->pipeline;
    const double f = 1, b = 2, w = 1;
    double idle =
        run->kind == PIPELINE_DUALPIPEV ? (ranks - 1) * (f + b + b - 3 * w) : (ranks - 1) * (f + b);
    return idle / (idle + run->micros * stages * (f + b));
}

struct plan_cost plan_cost_of(const struct plan_run *run, uint64_t tokens, double mfu,
                              double peak_flops, int64_t micro_usd_per_gpu_hour)
{
    struct plan_cost c = {.flops_per_token =
                              plan_flops_per_token(run->model, run->sequence_length)};
    double gpus = (double)run->pipeline * run->expert * run->data;
    double rank_sequences = (double)run->micros * run->micro_batch;
    double step_tokens = rank_sequences * run->expert * run->data * run->sequence_length;
    double seconds = (double)tokens * c.flops_per_token / (gpus * peak_flops * mfu);
    c.step_ms = 1000 * step_tokens * c.flops_per_token / (gpus * peak_flops * mfu);
    c.bubble_ms = c.step_ms * bubble_share(run);
    c.steps = (uint64_t)ceil((double)tokens / step_tokens);
    c.days = seconds / 86400;
    c.gpu_ms = (uint64_t)llround(1000 * seconds * gpus);
    c.micro_usd = (int64_t)llround(seconds * gpus / 3600 * (double)micro_usd_per_gpu_hour);
    return c;
}

int plan_memory_most(const struct plan_run *run, struct plan_memory *most, struct err *err)
{
    *most = (struct plan_memory){0};
    for (uint32_t i = 0; i < run->pipeline; i++) {
        struct plan_memory m;
        TRY(plan_memory(run, i, &m, err));
        if (m.total > most->total) {
            *most = m;
        }
    }
    return 0;
}

/* Whether `gpus` and the batch divide over this mesh; sets data and micros. */
static bool divides(struct plan_run *run, uint32_t gpus, uint32_t global_batch)
{
    uint64_t columns = (uint64_t)run->pipeline * run->expert;
    if (columns == 0 || columns > gpus || gpus % columns != 0) {
        return false;
    }
    run->data = (uint32_t)(gpus / columns);
    uint64_t ways = (uint64_t)run->data * run->expert * run->micro_batch;
    run->micros = (uint32_t)(global_batch / ways);
    return global_batch % ways == 0 && run->micros > 0 &&
           run->micros >= pipeline_micros_min(run->kind, run->pipeline) &&
           pipeline_stages(run->kind, run->pipeline) <= run->model->num_hidden_layers &&
           (run->expert == 1 ||
            (run->model->n_routed_experts > 0 && run->model->n_routed_experts % run->expert == 0));
}

int plan_mesh(struct plan_run *run, uint32_t gpus, uint32_t global_batch, uint64_t memory_bytes,
              struct err *err)
{
    const struct plan_run asked = *run;
    struct plan_run nearest = *run;
    struct plan_memory least = {.total = UINT64_MAX};
    uint32_t layers = run->model->num_hidden_layers, experts = run->model->n_routed_experts;
    for (uint32_t p = 1; p <= layers && p <= gpus; p++) {
        for (uint32_t e = 1; e <= (experts > 0 ? experts : 1) && e <= gpus; e++) {
            struct plan_memory most;
            *run = asked;
            run->pipeline = asked.pipeline > 0 ? asked.pipeline : p;
            run->expert = asked.expert > 0 ? asked.expert : e;
            if (!(run->pipeline == p && run->expert == e && divides(run, gpus, global_batch))) {
                continue;
            }
            TRY(plan_memory_most(run, &most, err));
            if (most.total <= memory_bytes) {
                return 0;
            }
            if (most.total < least.total) {
                least = most;
                nearest = *run;
            }
        }
    }
    *run = asked;
    if (least.total == UINT64_MAX) {
        return err_set(err, ERR_CONFIG,
                       "no mesh divides %" PRIu32 " GPUs, %" PRIu32 " experts and %" PRIu32
                       " sequences a step%s (a pipeline of at most %" PRIu32
                       " stages; dualpipev: two a rank, and two micro-batches for each)",
                       gpus, experts, global_batch,
                       asked.pipeline > 0 || asked.expert > 0 ? " as asked" : "", layers);
    }
    return err_set(err, ERR_CONFIG,
                   "no mesh of %" PRIu32 " GPUs fits: pipeline %" PRIu32 " x expert %" PRIu32
                   " x data %" PRIu32 " is nearest and needs %.1f GB a rank of %.1f GB, %.1f of "
                   "it activations (more GPUs, a smaller micro-batch or sequence, or a recipe "
                   "that recomputes more)",
                   gpus, nearest.pipeline, nearest.expert, nearest.data, (double)least.total / 1e9,
                   (double)memory_bytes / 1e9, (double)least.activations / 1e9);
}
