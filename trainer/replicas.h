/* What several ranks hold must be the same to the bit: the weights, the routers' biases, and the
 * optimiser's state where it is not parted. A bit that flipped in one rank's memory, or a sum that
 * came out different, would otherwise be saved or not depending on who writes the tensor, and
 * spread with the next checkpoint. */
#ifndef TRAINER_REPLICAS_H
#define TRAINER_REPLICAS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/comm.h"
#include "trainer/mesh.h"
#include "trainer/op.h"

struct replica_groups { /* borrowed */
    struct comm *world; /* all ranks */
    struct comm *batch; /* the ranks with the same dense parameters */
    struct comm *data;  /* the ranks with the same experts */
};

struct replica_finding {
    int64_t odd_rank; /* the one of at least three holders that is not as the others, which agree;
                         -1: it cannot be told who is wrong */
    char text[512];
};

/* Compares digests (XXH3) of every tensor over the ranks that hold it. ERR_SILENT on every rank
 * when one differs anywhere; then *finding is the same on all of them, its text (the error's, too)
 * names the first tensor and the ranks that stand alone. Collective. */
int replicas_check(const struct ckpt_tensors *tensors, const struct op_table *op,
                   const struct mesh *mesh, const struct replica_groups *groups,
                   struct replica_finding *finding, struct err *err);

/* digest: [ranks][n]. The first of the n that is not the same on all ranks, or n. odd[r]: rank r
 * has another value of it than most (of two halves: than the half with the lowest rank). Pure. */
size_t replicas_compare(const uint64_t *digest, uint32_t ranks, size_t n, bool *odd);

#endif
