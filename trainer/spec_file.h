/* Reads a job file and the model it names. */
#ifndef TRAINER_SPEC_FILE_H
#define TRAINER_SPEC_FILE_H

#include <stddef.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"

/* Parsed, checked against each other, and fit for this trainer (a `train:` job, no pipeline yet).
 * The caller ends the spec with jobspec_fini. */
int spec_file_load(struct jobspec *spec, struct model_config *config, const char *path,
                   const char *const *set, size_t set_count, struct err *err);

#endif
