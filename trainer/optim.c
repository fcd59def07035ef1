#include "trainer/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

const char *optim_state_name(enum optim_state state)
{
    static const char *const names[OPTIM_STATES] = {
        [OPTIM_M] = "m", [OPTIM_V] = "v", [OPTIM_EMA] = "ema"};
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
    for (int s = OPTIM_M; s <= OPTIM_V; s++) {
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

void optim_keep_ema(struct optim *o)
{
    for (size_t i = 0; i < o->parts; i++) {
        struct optim_part *part = &o->part[i];
        part->state[OPTIM_EMA] = mem_alloc_array(part->count, sizeof(float));
        for (size_t k = 0; k < part->count; k++) {
            part->state[OPTIM_EMA][k] = NAN;
        }
    }
}

/* In pieces, since the weights may be in another memory. */
static void update_ema(const struct optim *o, const struct optim_part *part, float decay)
{
    enum { PIECE = 16384 };
    float now[PIECE], *ema = part->state[OPTIM_EMA];
    const float *weight = o->params[part->param].weight + part->first;
    for (size_t first = 0; first < part->count; first += PIECE) {
        size_t n = part->count - first < PIECE ? part->count - first : PIECE;
        o->op->copy_to_host(now, weight + first, n * sizeof *now);
        for (size_t i = 0; i < n; i++) {
            float was = ema[first + i];
            ema[first + i] = isnan(was) ? now[i] : was + (1.0f - decay) * (now[i] - was);
        }
    }
}

void optim_fini(struct optim *o)
{
    for (size_t i = 0; i < o->parts; i++) {
        o->op->release(o->part[i].state[OPTIM_M]);
        o->op->release(o->part[i].state[OPTIM_V]);
        free(o->part[i].state[OPTIM_EMA]);
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
        if (part->state[OPTIM_EMA] != NULL) {
            update_ema(o, part, (float)spec->ema);
        }
    }
}

size_t optim_bytes(const struct optim *o)
{
    size_t bytes = 0;
    for (size_t i = 0; i < o->parts; i++) {
        for (int s = 0; s < OPTIM_STATES; s++) {
            bytes += o->part[i].state[s] != NULL ? o->part[i].count * sizeof(float) : 0;
        }
    }
    return bytes;
}
