#include "trainer/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

const char *optim_state_name(enum optim_state state)
{
    static const char *const names[OPTIM_STATES] = {[OPTIM_M] = "m", [OPTIM_V] = "v"};
    return names[state];
}

static void add_part(struct optim *o, size_t param, const float *begin, const float *end)
{
    const struct param *p = &o->params[param];
    const float *first = begin > p->weight ? begin : p->weight;
    const float *last = end < p->weight + p->count ? end : p->weight + p->count;
    if (first >= last) {
        return;
    }
    struct optim_part *part = &o->part[o->parts++];
    *part = (struct optim_part){param, (size_t)(first - p->weight), (size_t)(last - first), {0}};
    for (int s = 0; s < OPTIM_STATES; s++) {
        part->state[s] = o->op->alloc(part->count * sizeof(float));
    }
}

void optim_init(struct optim *o, const struct op_table *op, struct param *params, size_t count,
                const struct optim_window *windows, size_t window_count)
{
    *o = (struct optim){.op = op, .params = params, .count = count};
    o->part = mem_alloc_array(count * (windows != NULL ? window_count : 1), sizeof *o->part);
    for (size_t i = 0; i < count; i++) {
        if (params[i].copy) {
            continue;
        }
        if (windows == NULL) {
            add_part(o, i, params[i].weight, params[i].weight + params[i].count);
        }
        for (size_t w = 0; windows != NULL && w < window_count; w++) {
            add_part(o, i, windows[w].begin, windows[w].end);
        }
    }
}

void optim_fini(struct optim *o)
{
    for (size_t i = 0; i < o->parts; i++) {
        for (int s = 0; s < OPTIM_STATES; s++) {
            o->op->release(o->part[i].state[s]);
        }
    }
    free(o->part);
    *o = (struct optim){0};
}

bool optim_decays(const struct train_spec *spec, const struct param *p)
{
    static const struct {
        const char *name;
        enum decay_group group;
    } named[] = {{"model.embed_tokens.weight", DECAY_EMBEDDING},
                 {"lm_head.weight", DECAY_HEAD},
                 {".mlp.gate.weight", DECAY_GATE}};
    enum decay_group group = p->is_vector ? DECAY_NORMS : DECAY_LINEARS;
    size_t length = strlen(p->name);
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        size_t n = strlen(named[i].name);
        if (n <= length && strcmp(p->name + length - n, named[i].name) == 0) {
            group = named[i].group;
        }
    }
    return (spec->optimizer.no_decay & group) == 0;
}

/* In rows, so that several threads may share it. */
static void round_bf16(const struct op_table *op, float *x, size_t count)
{
    const size_t cols = 4096, rows = count / cols;
    const struct op_groups none = {0};
    struct mat body = mat_of(x, rows, cols), rest = mat_of(x + rows * cols, 1, count % cols);
    op->quantise(OP_BF16, none, body, body);
    op->quantise(OP_BF16, none, rest, rest);
}

void optim_step(struct optim *o, const struct train_spec *spec, uint64_t step, double lr,
                double grad_scale)
{
    double beta1 = spec->optimizer.beta1;
    double beta2 = spec->optimizer.beta2;
    float correction1 = (float)(1.0 - pow(beta1, (double)step));
    float correction2 = (float)(1.0 - pow(beta2, (double)step));
    for (size_t i = 0; i < o->parts; i++) {
        const struct optim_part *part = &o->part[i];
        const struct param *p = &o->params[part->param];
        float decay = optim_decays(spec, p) ? (float)spec->optimizer.weight_decay : 0.0f;
        o->op->adamw(p->weight + part->first, part->state[OPTIM_M], part->state[OPTIM_V],
                     p->grad + part->first, part->count, (float)grad_scale, (float)lr, beta1, beta2,
                     (float)spec->optimizer.eps, decay, correction1, correction2);
        if (spec->recipe.moments == PRECISION_BF16) {
            round_bf16(o->op, part->state[OPTIM_M], part->count);
            round_bf16(o->op, part->state[OPTIM_V], part->count);
        }
    }
}

size_t optim_bytes(const struct optim *o)
{
    size_t bytes = 0;
    for (size_t i = 0; i < o->parts; i++) {
        bytes += OPTIM_STATES * o->part[i].count * sizeof(float);
    }
    return bytes;
}
