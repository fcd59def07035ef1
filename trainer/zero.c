#include "trainer/zero.h"

#include <assert.h>

static void part(struct zero *z, int kind, struct param_range range, struct comm *comm)
{
    assert(range.count % comm->size == 0); /* params_pad */
    z->kind[kind].range = range;
    z->kind[kind].comm = comm;
    z->kind[kind].part = range.count / comm->size;
}

void zero_init(struct zero *z, struct model *model, bool parted, struct comm *dense,
               struct comm *data)
{
    *z = (struct zero){.parted = parted};
    part(z, 0, model_param_range(model, false), dense);
    part(z, 1, model_param_range(model, true), data);
}

void zero_windows(const struct zero *z, struct optim_window windows[2])
{
    for (int i = 0; i < 2; i++) {
        const float *all = z->kind[i].range.weight;
        const float *mine = all + z->kind[i].comm->rank * z->kind[i].part;
        windows[i] = z->parted ? (struct optim_window){mine, mine + z->kind[i].part}
                               : (struct optim_window){all, all + z->kind[i].range.count};
    }
}

int zero_reduce(const struct zero *z, struct err *err)
{
    for (int i = 0; i < 2; i++) {
        struct comm *c = z->kind[i].comm;
        float *grad = z->kind[i].range.grad;
        if (z->parted) {
            TRY(c->ops->reduce_scatter_sum_f32(c, grad, z->kind[i].part, err));
        } else {
            TRY(c->ops->all_reduce_sum_f32(c, grad, z->kind[i].range.count, err));
        }
    }
    return 0;
}

double zero_sum_squares(const struct zero *z, const struct op_table *op)
{
    double sum = 0;
    for (int i = 1; i >= 0; i--) {
        const float *grad = z->kind[i].range.grad + z->kind[i].comm->rank * z->kind[i].part;
        sum += op->sum_squares(grad, z->kind[i].part);
    }
    return sum;
}

int zero_gather(const struct zero *z, struct err *err)
{
    for (int i = 0; i < 2 && z->parted; i++) {
        struct comm *c = z->kind[i].comm;
        float *weight = z->kind[i].range.weight;
        TRY(c->ops->all_gather(c, weight + c->rank * z->kind[i].part, weight,
                               z->kind[i].part * sizeof *weight, err));
    }
    return 0;
}
