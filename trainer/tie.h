/* The embedding where two stages on different ranks use it: the first looks up the input in it, the
 * last the MTP modules' tokens, or multiplies with it when it is the head, too. The first has it,
 * the last a copy (param.copy) whose gradient goes to the first and whose weights come from there.
 */
#ifndef TRAINER_TIE_H
#define TRAINER_TIE_H

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"

/* ends: the two ranks, the first stage's being rank 0; NULL: there is no copy. Collective over the
 * two: after the backward passes and before gradients are reduced, */
int tie_sum_gradient(struct model *model, struct comm *ends, struct err *err);
/* and after the optimiser's step. */
int tie_copy_weights(struct model *model, struct comm *ends, struct err *err);

#endif
