/* ZeRO-1: the gradients of the parameters that several ranks hold are summed, each rank gets its
 * part of the sums, has the optimiser's state of that part, updates it, and all gather the weights.
 * Dense parameters are parted over the ranks that share the batch, an expert's over its data group;
 * parts are equal runs of the arrays of param_range. Sums are made in the order of the ranks, as
 * those of an all-reduce, so that nothing depends on whether the state is parted.
 *
 * Gradients are reduced as they become final: during the last backward pass a thread of its own
 * takes them from the end of the arrays on, in buckets of whole layers, cut alike on all ranks. */
#ifndef TRAINER_ZERO_H
#define TRAINER_ZERO_H

#include <stdbool.h>

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"
#include "trainer/optim.h"

struct zero_queue;
struct zero {
    bool parted; /* false: every rank has the whole state, and sums are all-reduced */
    struct zero_kind {
        struct param_range range;
        struct comm *comm;    /* borrowed; over which the range is replicated */
        size_t part;          /* elements a rank */
        size_t left;          /* of this step, from the beginning: not handed over to be reduced */
    } kind[2];                /* dense, experts */
    struct zero_queue *queue; /* owned; NULL where nothing is replicated */
};

/* dense: the ranks that share the batch; data: those that hold the same experts. */
void zero_init(struct zero *z, struct model *model, bool parted, struct comm *dense,
               struct comm *data);
void zero_fini(struct zero *z); /* a zeroed one is fine */
/* What this rank's optimiser updates. */
void zero_windows(const struct zero *z, struct optim_window windows[2]);
/* A model_final's fn with a struct zero: reduction of what is final may begin. The groups' other
 * collectives must wait for zero_reduce. */
void zero_final(void *zero, const float *dense, const float *expert);
/* All gradients are final. Afterwards that of this rank's part is the sum; that of the others is
 * undefined when parted, and the sum too when not. Collective. */
int zero_reduce(struct zero *z, struct err *err);
/* This rank's parts of the summed gradient, squared and summed: over all ranks of the dense group
 * that is the square of the norm, whether parted or not. */
double zero_sum_squares(const struct zero *z, const struct op_table *op);
/* Everyone's updated weights to everyone. Collective. */
int zero_gather(const struct zero *z, struct err *err);

#endif
