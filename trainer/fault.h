/* What train.fault asks for: a run that breaks where it was told to, so that guards, comparisons
 * and recovery can be seen at work. Each call does nothing unless it is its step and rank. */
#ifndef TRAINER_FAULT_H
#define TRAINER_FAULT_H

#include <stdint.h>

#include "proto/fault_spec.h"
#include "trainer/feed.h"
#include "trainer/model.h"
#include "trainer/op.h"

/* Random tokens in place of those of the noisy sequences among first, first + 1, ... from the
 * cursor on, as feed_train gave them. The same at every reading. */
void fault_tokens(const struct fault_spec *f, const struct feed *feed, uint64_t first,
                  uint32_t count, int32_t *tokens, uint64_t epoch);
/* This rank's gradients, before they are summed. */
void fault_gradient(const struct fault_spec *f, struct model *model, const struct op_table *op,
                    uint64_t step, uint32_t rank, uint64_t epoch);
/* This rank's copy of a replicated weight, after the step. */
void fault_weight(const struct fault_spec *f, struct model *model, const struct op_table *op,
                  uint64_t step, uint32_t rank, uint64_t epoch);

#endif
