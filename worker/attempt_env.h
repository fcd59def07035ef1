/* What the ranks of an attempt are started with: program, arguments, environment. */
#ifndef WORKER_ATTEMPT_ENV_H
#define WORKER_ATTEMPT_ENV_H

#include <stdbool.h>

#include "proto/ds.pb-c.h"
#include "proto/jobspec.h"
#include "worker/user.h"

/* Facts of this node and attempt folder. All borrowed. */
struct attempt_facts {
    const char *dir; /* the attempt folder */
    const char *report_socket;
    const char *addr; /* local address that ranks bind */
    const char *dstrain;
    uint32_t cores;
    bool nvidia;             /* accelerators are NVIDIA's: number them as the driver does */
    const struct user *user; /* to become; NULL: run as we do */
};

/* Ranks of an order on this node: one each accelerator, or one. */
uint32_t attempt_rank_count(const Ds__AttemptStart *order);

/* Fills argv, env, workdir and the user (borrowed) of a zeroed launch. inherited: NULL-terminated,
 * the worker's own environment, of which what belongs to a service manager or another job is left
 * out. */
void attempt_env_fill(Ds__ShimLaunch *launch, const Ds__AttemptStart *order,
                      const struct jobspec *spec, const struct attempt_facts *facts,
                      char *const *inherited);
/* Frees what fill allocated. */
void attempt_env_free(Ds__ShimLaunch *launch);

#endif
