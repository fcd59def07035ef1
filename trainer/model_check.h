/* Whether a model and a shape can be built. Pure. */
#ifndef TRAINER_MODEL_CHECK_H
#define TRAINER_MODEL_CHECK_H

#include "trainer/model.h"

/* ERR_CONFIG with the key, the value and what is allowed. */
int model_check(const struct model_options *options, struct err *err);

#endif
