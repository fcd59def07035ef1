/* The learning rate: linear warm-up from 0, constant, cosine down to lr_min at the last step
 * (reference deepseek-v3 §1.5). */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stdint.h>

#include "proto/jobspec.h"

/* step counts from 1; spec->steps is the last. */
double schedule_lr(const struct train_spec *spec, uint64_t step);

#endif
