/* Which back end a rank computes on: the CPU's, always there, or a plug-in (op_plugin.h). */
#ifndef TRAINER_BACKEND_H
#define TRAINER_BACKEND_H

#include "proto/jobspec.h"
#include "trainer/op.h"

struct backend_place {
    uint32_t ranks;      /* of the whole job */
    uint32_t local_rank; /* on this machine: the number of its device */
    int threads;         /* of the CPU back end */
    const char *plan;    /* what to say when device memory runs out; borrowed for good */
};

/* Whether this many ranks, all of them on this machine, could be opened. ERR_CONFIG says why not.
 */
int backend_check(enum backend kind, uint32_t ranks, struct err *err);
int backend_open(enum backend kind, struct backend_place place, const struct op_table **op,
                 struct err *err);

#endif
