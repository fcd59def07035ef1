/* AdamW over the parameters of this rank, one pair of moments a parameter. The step computes in
 * FP32; where the recipe has the moments in BF16 they are rounded as it leaves them, so that the
 * next one and a checkpoint find BF16 numbers. Master weights and gradients are FP32 always. */
#ifndef TRAINER_OPTIM_H
#define TRAINER_OPTIM_H

#include <stddef.h>
#include <stdint.h>

#include "proto/jobspec.h"
#include "trainer/model.h"
#include "trainer/op.h"

struct optim {
    const struct op_table *op; /* borrowed */
    struct param *params;      /* borrowed from the model */
    size_t count;
    float **m, **v; /* owned; count items each, back-end memory, shaped like the weights */
};

void optim_init(struct optim *o, const struct op_table *op, struct param *params, size_t count);
void optim_fini(struct optim *o);
/* One update. step counts from 1; grad_scale multiplies every gradient (clipping). The caller
 * refreshes the model. */
void optim_step(struct optim *o, const struct train_spec *spec, uint64_t step, double lr,
                double grad_scale);

#endif
