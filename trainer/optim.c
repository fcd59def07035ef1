#include "trainer/optim.h"

#include <math.h>
#include <stdlib.h>

#include "lib/mem.h"

void optim_init(struct optim *o, const struct op_table *op, struct param *params, size_t count)
{
    *o = (struct optim){.op = op, .params = params, .count = count};
    o->m = mem_alloc_array(count, sizeof *o->m);
    o->v = mem_alloc_array(count, sizeof *o->v);
    for (size_t i = 0; i < count; i++) {
        o->m[i] = op->alloc(params[i].count * sizeof(float));
        o->v[i] = op->alloc(params[i].count * sizeof(float));
    }
}

void optim_fini(struct optim *o)
{
    for (size_t i = 0; i < o->count; i++) {
        o->op->release(o->m[i]);
        o->op->release(o->v[i]);
    }
    free(o->m);
    free(o->v);
    *o = (struct optim){0};
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
    for (size_t i = 0; i < o->count; i++) {
        const struct param *p = &o->params[i];
        o->op->adamw(p->weight, o->m[i], o->v[i], p->grad, p->count, (float)grad_scale, (float)lr,
                     (float)beta1, (float)beta2, (float)spec->optimizer.eps,
                     p->decay ? (float)spec->optimizer.weight_decay : 0.0f, correction1,
                     correction2);
        if (spec->recipe.moments == PRECISION_BF16) {
            round_bf16(o->op, o->m[i], p->count);
            round_bf16(o->op, o->v[i], p->count);
        }
    }
}
