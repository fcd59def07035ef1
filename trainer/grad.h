/* The gradient of the whole model across ranks: its norm, and what is wrong with it. */
#ifndef TRAINER_GRAD_H
#define TRAINER_GRAD_H

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"
#include "trainer/op.h"
#include "trainer/zero.h"

/* Norm of the whole model's gradient once it is reduced, every element counted once; the same on
 * every rank. world: all ranks. Collective. */
int grad_norm(const struct zero *zero, const struct op_table *op, struct comm *world, double *norm,
              struct err *err);
/* What brings a gradient of that norm to the norm `clip` at most; clip 0: no limit. */
double grad_clip_scale(double norm, double clip);
/* Name of the first tensor here whose gradient is not finite, or NULL. */
const char *grad_suspect(struct model *model, const struct op_table *op);

#endif
