/* The table of the job file's keys; for jobspec.c. */
#ifndef PROTO_JOBSPEC_FIELDS_H
#define PROTO_JOBSPEC_FIELDS_H

#include "lib/yaml.h"
#include "proto/jobspec.h"

#define JOBSPEC_STEPS_MAX  1000000000000000ull    /* 10^15 */
#define JOBSPEC_TOKENS_MAX 1000000000000000000ull /* 10^18 */
#define JOBSPEC_PATH_MAX   2047u

/* A count of tokens, such as 14.8T. */
int jobspec_read_tokens(const struct yaml_item *item, uint64_t *tokens, struct err *err);

/* Names of enum decay_group, first bit first; NULL after the last. */
extern const char *const jobspec_decay_groups[];

/* Of struct jobspec. */
extern const struct yaml_field jobspec_fields[];

/* Readers of the keys about when and where; place is the struct jobspec (jobspec_when.c). */
int jobspec_read_array(const struct yaml_item *item, void *place, struct err *err);
int jobspec_read_dependencies(const struct yaml_item *item, void *place, struct err *err);
int jobspec_read_preemptible(const struct yaml_item *item, void *place, struct err *err);
/* Waits for that job too, unless the job file says itself how. */
void jobspec_depend(struct jobspec *spec, enum dependency_kind kind, uint64_t job);
/* place is the struct jobspec_time. */
int jobspec_read_time(const struct yaml_item *item, void *place, struct err *err);
int jobspec_check_times(const struct jobspec *spec, const struct yaml_item *root, struct err *err);

#endif
