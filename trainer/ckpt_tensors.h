/* The tensors of a checkpoint as this rank sees them: for every parameter X held here the FP32
 * master weight X and its share of the moments optimizer.m.X and optimizer.v.X, and the routers'
 * selection biases. Each element of the model is written by exactly one rank: weights as whole
 * tensors, moments as the runs that the ranks have (reshard.h). */
#ifndef TRAINER_CKPT_TENSORS_H
#define TRAINER_CKPT_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/mesh.h"
#include "trainer/model.h"
#include "trainer/optim.h"

/* The ranks whose values of a tensor must be the same (replicas.h). */
enum ckpt_holders {
    CKPT_HELD_ALONE,    /* another rank's part is another part */
    CKPT_HELD_BY_BATCH, /* dense parameters: the ranks that share the batch */
    CKPT_HELD_BY_DATA,  /* an expert's */
    CKPT_HELD_BY_WORLD, /* router biases */
};
struct ckpt_tensor {
    char name[160];
    uint32_t rows, cols; /* of the whole tensor */
    bool is_vector;
    bool owned;    /* this rank writes it */
    bool host;     /* data is host memory, not the back end's */
    bool moment;   /* of the optimiser */
    bool optional; /* a checkpoint may do without: a run that kept no moving average */
    enum ckpt_holders holders;
    uint64_t first; /* element of the tensor that data begins with */
    size_t count;
    float *data; /* borrowed */
};
struct ckpt_tensors {
    struct ckpt_tensor *item; /* owned */
    size_t count;
};
#define CKPT_MOMENT_PREFIX "optimizer."
#define CKPT_EMA_PREFIX    "optimizer.ema."

static inline bool ckpt_tensor_is_whole(const struct ckpt_tensor *t)
{
    return t->first == 0 && t->count == (size_t)t->rows * t->cols;
}

/* Borrows everything. Deals what several ranks have: a replicated parameter to one of the ranks
 * that share the batch, an expert's to one of its data group, biggest first to whom has least, so
 * that shards come out equal. parted: the moments here are nobody else's. */
void ckpt_tensors_init(struct ckpt_tensors *t, const struct optim *optim,
                       const struct router *routers, size_t router_count, const struct mesh *mesh,
                       bool parted);
void ckpt_tensors_fini(struct ckpt_tensors *t);

/* owner[i] in 0..ways-1 for each of n sizes. Pure; the same on every rank that asks with the same
 * sizes. */
void ckpt_deal(const size_t *sizes, size_t n, uint32_t ways, uint32_t *owner);

#endif
