/* One sentence for somebody whose device memory has run out: what the plan of this rank needs
 * (proto/plan_memory.h), and which knob of the job file lowers its largest part. */
#ifndef TRAINER_MEMORY_TEXT_H
#define TRAINER_MEMORY_TEXT_H

#include <stdint.h>

#include "proto/jobspec.h"
#include "proto/model_config.h"

/* The caller frees it; "" where no plan can be made. */
char *memory_text(const struct train_spec *train, const struct model_config *model, uint32_t ranks,
                  uint32_t pipeline_index);

#endif
