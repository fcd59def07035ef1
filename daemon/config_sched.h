/* The section `scheduler:` of dsd.yaml. */
#ifndef DAEMON_CONFIG_SCHED_H
#define DAEMON_CONFIG_SCHED_H

#include "daemon/core/policy.h"
#include "lib/yaml.h"

/* A policy and the memory that it points into. A zeroed one is fine to fini. */
struct sched_config {
    struct policy policy;
    struct policy_class *classes; /* owned, as all below, with their texts */
    struct policy_place *places;
    struct queue_row *queues;
    struct account_row *accounts;
};

void sched_config_default(struct sched_config *c);
/* Of struct sched_config. */
extern const struct yaml_field sched_config_fields[];
/* What needs several values; also points the policy at what was read. name: of the file. */
int sched_config_finish(struct sched_config *c, const char *name, struct err *err);
void sched_config_fini(struct sched_config *c);

#endif
