#include "trainer/grad.h"

#include <math.h>

int grad_sum(struct model *model, struct comm *dense, struct comm *data, struct err *err)
{
    struct param_range replicated = model_param_range(model, false);
    struct param_range experts = model_param_range(model, true);
    TRY(dense->ops->all_reduce_sum_f32(dense, replicated.grad, replicated.count, err));
    return data->ops->all_reduce_sum_f32(data, experts.grad, experts.count, err);
}

int grad_norm(struct model *model, const struct op_table *op, struct comm *expert, double *norm,
              struct err *err)
{
    struct param_range replicated = model_param_range(model, false);
    struct param_range experts = model_param_range(model, true);
    double sum = op->sum_squares(experts.grad, experts.count);
    TRY(expert->ops->all_reduce_sum_f64(expert, &sum, 1, err));
    *norm = sqrt(sum + op->sum_squares(replicated.grad, replicated.count));
    return 0;
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
