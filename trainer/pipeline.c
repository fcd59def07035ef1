/* Before a pass its input is received and put where the model wants it, after it its output is sent
 * on; both may be of the same rank, at the turn of a V. Sending does not wait, and what arrives is
 * taken in while this rank computes (comm.h), so that the passes of a joined action, one after the
 * other here, hide each other's messages. A micro-batch has the slot of its number modulo the
 * slots: the passes of a stage, and their last backward parts, go in the order of the
 * micro-batches. */
#include "trainer/pipeline.h"

#include <stdlib.h>

#include "lib/mem.h"

/* Channels between two ranks: of the boundary behind a stage, either way. */
static uint32_t forward_channel(uint32_t stage)
{
    return 2 * stage;
}

static uint32_t backward_channel(uint32_t stage)
{
    return 2 * stage + 1;
}

int pipeline_plan(struct model_options *o, enum pipeline_kind kind, const struct mesh *mesh,
                  uint32_t micros, struct err *err)
{
    uint32_t ranks = mesh->pipeline, stages = pipeline_stages(kind, ranks);
    struct pipeline_schedule s;
    if (stages > o->config->num_hidden_layers) {
        return err_set(err, ERR_CONFIG, "parallel: %u pipeline stages, but the model has %u layers",
                       stages, o->config->num_hidden_layers);
    }
    TRY(pipeline_schedule_init(&s, kind, ranks, mesh->pipeline_index, micros, err));
    o->stages = pipeline_stages_here(kind);
    for (uint32_t i = 0; i < o->stages; i++) {
        struct model_stage *stage = &o->stage[i];
        pipeline_layers(o->config->num_hidden_layers, stages,
                        pipeline_stage(kind, ranks, mesh->pipeline_index, i), &stage->first_layer,
                        &stage->layers);
        stage->slots = pipeline_schedule_peak(&s, i);
    }
    pipeline_schedule_fini(&s);
    return 0;
}

void pipeline_init(struct pipeline *p, struct model *model, const struct model_options *options,
                   enum pipeline_kind kind, struct comm *peers)
{
    const struct mesh *mesh = options->mesh;
    *p = (struct pipeline){.model = model,
                           .op = options->op,
                           .peers = peers,
                           .kind = kind,
                           .ranks = mesh->pipeline,
                           .rank = mesh->pipeline_index};
    for (uint32_t i = 0; i < options->stages; i++) {
        p->slots[i] = options->stage[i].slots;
    }
    struct mat m = model_input(model, 0, 0);
    p->message = mem_alloc_array(m.rows * m.cols, sizeof *p->message);
}

void pipeline_fini(struct pipeline *p)
{
    pipeline_schedule_fini(&p->train);
    free(p->message);
    *p = (struct pipeline){0};
}

/* ---- between stages */

static size_t bytes_of(struct mat m)
{
    return m.rows * m.cols * sizeof *m.data;
}

static int send(struct pipeline *p, uint32_t to_stage, uint32_t channel, struct mat m,
                struct err *err)
{
    uint32_t to = pipeline_rank_of(p->kind, p->ranks, to_stage);
    p->op->copy_to_host(p->message, m.data, bytes_of(m));
    return p->peers->ops->send(p->peers, to, channel, p->message, bytes_of(m), err);
}

static int receive(struct pipeline *p, uint32_t from_stage, uint32_t channel, struct mat m,
                   struct err *err)
{
    uint32_t from = pipeline_rank_of(p->kind, p->ranks, from_stage);
    TRY(p->peers->ops->recv(p->peers, from, channel, p->message, bytes_of(m), err));
    p->op->copy_from_host(m.data, p->message, bytes_of(m));
    return 0;
}

static bool is_here(const struct pipeline *p, uint32_t stage)
{
    return pipeline_rank_of(p->kind, p->ranks, stage) == p->rank;
}

static uint32_t slot_of(const struct pipeline *p, uint32_t place, uint32_t micro)
{
    return micro % p->slots[place];
}

/* ---- one action */

struct run {
    struct pipeline *p;
    const struct pipeline_feed *feed;
    struct model_losses *sums;
    struct model_pass pass; /* what all passes have in common */
};

static int forward(struct run *r, const struct pipeline_action *a, struct model_pass *pass,
                   struct err *err)
{
    struct pipeline *p = r->p;
    uint32_t stage = pipeline_stage(p->kind, p->ranks, p->rank, a->stage);
    uint32_t stages = pipeline_stages(p->kind, p->ranks);
    const int32_t *tokens = NULL;
    if (stage == 0 || stage + 1 == stages) {
        TRY(r->feed->tokens(r->feed->ctx, a->micro, &tokens, err));
    }
    if (stage > 0 && is_here(p, stage - 1)) {
        uint32_t before = pipeline_place_of(p->kind, p->ranks, stage - 1);
        p->op->copy(model_output(p->model, before, slot_of(p, before, a->micro)),
                    model_input(p->model, pass->stage, pass->slot));
    } else if (stage > 0) {
        TRY(receive(p, stage - 1, forward_channel(stage - 1),
                    model_input(p->model, pass->stage, pass->slot), err));
    }
    TRY(model_forward(p->model, pass, tokens, r->sums, err));
    if (stage + 1 < stages && !is_here(p, stage + 1)) {
        TRY(send(p, stage + 1, forward_channel(stage),
                 model_output(p->model, pass->stage, pass->slot), err));
    }
    return 0;
}

static int backward(struct run *r, const struct pipeline_action *a, struct model_pass *pass,
                    struct err *err)
{
    struct pipeline *p = r->p;
    uint32_t stage = pipeline_stage(p->kind, p->ranks, p->rank, a->stage);
    uint32_t stages = pipeline_stages(p->kind, p->ranks);
    struct mat d = model_gradient(p->model, pass->stage, pass->slot);
    if (stage + 1 < stages && !is_here(p, stage + 1)) {
        TRY(receive(p, stage + 1, backward_channel(stage), d, err));
    }
    TRY(model_backward(p->model, pass, err));
    if (stage > 0 && is_here(p, stage - 1)) {
        uint32_t before = pipeline_place_of(p->kind, p->ranks, stage - 1);
        p->op->copy(d, model_gradient(p->model, before, slot_of(p, before, a->micro)));
    } else if (stage > 0) {
        TRY(send(p, stage - 1, backward_channel(stage - 1), d, err));
    }
    return 0;
}

/* With two stages, or weights' gradients put off, the end comes in pieces. */
static bool finals(const struct pipeline *p)
{
    return p->final.fn != NULL && pipeline_stages_here(p->kind) == 1;
}

static int carry_out(struct run *r, const struct pipeline_schedule *s, struct err *err)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct pipeline_action *a = &s->action[i];
        struct model_pass pass = r->pass;
        pass.stage = a->stage;
        pass.slot = slot_of(r->p, a->stage, a->micro);
        pass.split = a->op == PIPELINE_I;
        bool last = a->op == PIPELINE_B && a->micro + 1 == r->p->micros;
        pass.final = last && finals(r->p) ? &r->p->final : NULL;
        switch (a->op) {
        case PIPELINE_F:
            TRY(forward(r, a, &pass, err));
            break;
        case PIPELINE_B:
        case PIPELINE_I:
            TRY(backward(r, a, &pass, err));
            break;
        case PIPELINE_W:
#ifdef MUTANT_late_weights
            pass.slot = 0;
#endif
            model_weights(r->p->model, &pass);
            break;
        }
    }
    return 0;
}

static int set_micros(struct pipeline *p, uint32_t micros, struct err *err)
{
    if (micros == p->micros) {
        return 0;
    }
    pipeline_schedule_fini(&p->train);
    p->micros = 0;
    TRY(pipeline_schedule_init(&p->train, p->kind, p->ranks, p->rank, micros, err));
    for (uint32_t i = 0; i < pipeline_stages_here(p->kind); i++) {
        if (pipeline_schedule_peak(&p->train, i) > p->slots[i]) {
            return err_set(err, ERR_CONFIG,
                           "parallel: %u micro-batches are more than were planned for", micros);
        }
    }
    p->micros = micros;
    return 0;
}

int pipeline_train(struct pipeline *p, const struct pipeline_feed *feed, uint32_t micros,
                   double grad_scale, struct model_losses *sums, struct err *err)
{
    TRY(set_micros(p, micros, err));
    struct run r = {.p = p,
                    .feed = feed,
                    .sums = sums,
                    .pass = {.gradient = true, .count_load = true, .grad_scale = grad_scale}};
    return carry_out(&r, &p->train, err);
}

int pipeline_eval(struct pipeline *p, const struct pipeline_feed *feed, uint32_t micros,
                  bool count_load, struct model_losses *sums, struct err *err)
{
    struct run r = {.p = p, .feed = feed, .sums = sums, .pass = {.count_load = count_load}};
    struct pipeline_schedule s;
    pipeline_schedule_forward(&s, p->kind, p->ranks, p->rank, micros);
    int rc = carry_out(&r, &s, err);
    pipeline_schedule_fini(&s);
    return rc;
}
