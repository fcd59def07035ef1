/* Gradients across ranks: summed over the ranks that hold a copy of the parameter, and their global
 * norm. */
#ifndef TRAINER_GRAD_H
#define TRAINER_GRAD_H

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"
#include "trainer/op.h"

/* dense: where replicated parameters are summed, data: where an expert's are. Two calls, each over
 * one array. Afterwards every copy of a parameter has the same gradient, to the bit. Collective. */
int grad_sum(struct model *model, struct comm *dense, struct comm *data, struct err *err);
/* Norm of the whole model's gradient, each expert counted once (expert: the group where the others
 * are); the same on every rank. Collective. */
int grad_norm(struct model *model, const struct op_table *op, struct comm *expert, double *norm,
              struct err *err);
/* Name of the first tensor here whose gradient is not finite, or NULL. */
const char *grad_suspect(struct model *model, const struct op_table *op);

#endif
