#include "trainer/tie.h"

int tie_sum_gradient(struct model *model, struct comm *ends, struct err *err)
{
    bool is_copy;
    const struct param *p = model_embedding(model, &is_copy);
    return ends != NULL ? ends->ops->all_reduce_sum_f32(ends, p->grad, p->count, err) : 0;
}

int tie_copy_weights(struct model *model, struct comm *ends, struct err *err)
{
    bool is_copy;
    const struct param *p = model_embedding(model, &is_copy);
    return ends != NULL
               ? ends->ops->broadcast(ends, p->weight, p->count * sizeof *p->weight, 0, err)
               : 0;
}
