#include "trainer/grad.h"

#include <math.h>

int grad_norm(const struct zero *zero, const struct op_table *op, struct comm *world, double *norm,
              struct err *err)
{
    double sum = zero_sum_squares(zero, op);
    TRY(world->ops->all_reduce_sum_f64(world, &sum, 1, err));
    *norm = sqrt(sum);
    return 0;
}

double grad_clip_scale(double norm, double clip)
{
    return clip > 0 && norm > clip ? clip / norm : 1.0;
}

const char *grad_suspect(struct model *model, const struct op_table *op)
{
    size_t count;
    const struct param *params = model_params(model, &count);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(op->sum_squares(params[i].grad, params[i].count))) {
            return params[i].name;
        }
    }
    return NULL;
}
