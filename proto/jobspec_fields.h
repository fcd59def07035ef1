/* The table of the job file's keys; for jobspec.c. */
#ifndef PROTO_JOBSPEC_FIELDS_H
#define PROTO_JOBSPEC_FIELDS_H

#include "lib/yaml.h"
#include "proto/jobspec.h"

#define JOBSPEC_STEPS_MAX  1000000000000000ull    /* 10^15 */
#define JOBSPEC_TOKENS_MAX 1000000000000000000ull /* 10^18 */
#define JOBSPEC_PATH_MAX   2047u

/* Of struct jobspec. */
extern const struct yaml_field jobspec_fields[];

#endif
