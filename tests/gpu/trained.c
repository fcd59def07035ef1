#include "tests/gpu/trained.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define LEARNING_RATE 1e-4

struct model_config trained_config(struct model_config c)
{
    c.first_k_dense_replace = c.first_k_dense_replace < c.num_hidden_layers
                                  ? c.first_k_dense_replace
                                  : c.num_hidden_layers;
    c.n_group = c.n_group > 0 ? c.n_group : 1;
    c.topk_group = c.topk_group > 0 ? c.topk_group : c.n_group;
    c.norm_topk_prob = true;
    c.routed_scaling_factor = 2.5;
    c.rms_norm_eps = 1e-6;
    c.rope_theta = 10000;
    c.max_position_embeddings = 4096;
    c.bos_token_id = c.eos_token_id = -1;
    return c;
}

void trained_create(struct trained *t, const struct op_table *op, const struct model_config *config,
                    enum precision precision, uint32_t micro_batch, uint32_t sequence_length,
                    const struct model_stage *stage)
{
    struct err err = {0};
    *t = (struct trained){.op = op,
                          .config = *config,
                          .mesh = {.pipeline = 1, .expert = 1, .data = 1, .world = 1},
                          .comm = comm_self_create(),
                          .recipe = recipe_of(precision),
                          .micro_batch = micro_batch,
                          .sequence_length = sequence_length};
    struct model_options options = {.config = &t->config,
                                    .op = op,
                                    .mesh = &t->mesh,
                                    .expert_comm = t->comm,
                                    .precision = precision,
                                    .recipe = &t->recipe,
                                    .micro_batch = micro_batch,
                                    .sequence_length = sequence_length,
                                    .balance_alpha = 1e-4,
                                    .mtp_lambda = 0.3,
                                    .init_std = 1 / sqrt((double)config->hidden_size),
                                    .seed = 1};
    if (stage != NULL) {
        options.stage[0] = *stage;
        options.stages = 1;
    }
    if (model_create(&t->model, &options, &err) != 0) {
        fprintf(stderr, "cannot make the model to train: %s\n", err.text);
        exit(1);
    }
    model_init(t->model);
    model_refresh(t->model);
    t->spec.optimizer.beta1 = 0.9;
    t->spec.optimizer.beta2 = 0.95;
    t->spec.optimizer.eps = 1e-8;
    t->spec.optimizer.weight_decay = 0.1;
    t->spec.recipe = t->recipe;
    size_t count;
    struct param *params = model_params(t->model, &count);
    optim_init(&t->optim, op, params, count, NULL, 0);
}

void trained_destroy(struct trained *t)
{
    optim_fini(&t->optim);
    model_destroy(t->model);
    comm_destroy(t->comm);
}

static double grad_norm(const struct trained *t)
{
    double sum = 0;
    for (int experts = 0; experts < 2; experts++) {
        struct param_range range = model_param_range(t->model, experts != 0);
        sum += range.count > 0 ? t->op->sum_squares(range.grad, range.count) : 0;
    }
    return sqrt(sum);
}

double trained_step(struct trained *t, const int32_t *tokens, uint64_t step)
{
    struct err err = {0};
    struct model_losses sums = {0};
    model_zero_grad(t->model);
    model_router_reset(t->model);
    double targets = (double)t->micro_batch * t->sequence_length;
    if (model_train(t->model, tokens, 1 / targets, &sums, &err) != 0) {
        fprintf(stderr, "step %llu: %s\n", (unsigned long long)step, err.text);
        exit(1);
    }
    double norm = grad_norm(t);
    optim_step(&t->optim, &t->spec, step, LEARNING_RATE, norm > 1 ? 1 / norm : 1);
    model_refresh(t->model);
    return sums.loss / targets;
}

/* ---- snapshots */

/* Visits weights, then moments, each with its place in the snapshot. */
static size_t visit(const struct trained *t, float *data, bool load)
{
    size_t params, at = 0;
    struct param *p = model_params(t->model, &params);
    size_t pieces = params + t->optim.parts * 2;
    for (size_t i = 0; i < pieces; i++) {
        const struct optim_part *part = i < params ? NULL : &t->optim.part[(i - params) / 2];
        float *there = part == NULL ? p[i].weight : part->state[(i - params) % 2];
        size_t count = part == NULL ? p[i].count : part->count;
        if (data != NULL && load) {
            t->op->copy_from_host(there, data + at, count * sizeof *data);
        } else if (data != NULL) {
            t->op->copy_to_host(data + at, there, count * sizeof *data);
        }
        at += count;
    }
    return at;
}

struct snapshot trained_save(const struct trained *t)
{
    size_t count = visit(t, NULL, false);
    struct snapshot s = {mem_alloc_array(count, sizeof *s.data), count};
    (void)visit(t, s.data, false);
    return s;
}

void trained_load(struct trained *t, const struct snapshot *s)
{
    if (visit(t, NULL, true) != s->count) {
        fprintf(stderr, "the snapshot is of another model\n");
        exit(1);
    }
    (void)visit(t, s->data, true);
    model_refresh(t->model);
}
