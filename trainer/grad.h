/* Gradients across ranks: summed over the ranks that hold a copy of the parameter, and their global
 * norm. */
#ifndef TRAINER_GRAD_H
#define TRAINER_GRAD_H

#include <stddef.h>

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"
#include "trainer/op.h"

#define GRAD_BUCKET_FLOATS ((size_t)4 << 20)

struct grad_sync {
    const struct op_table *op; /* borrowed */
    struct param *params;      /* borrowed */
    size_t count;
    struct comm *dense;  /* borrowed; replicated parameters are summed here */
    struct comm *data;   /* borrowed; an expert's parameters are summed here */
    struct comm *expert; /* borrowed; where the other experts are */
    float *bucket;       /* owned; many tensors travel in one call */
    size_t bucket_floats;
};

/* bucket_floats: 0 for GRAD_BUCKET_FLOATS. */
void grad_sync_init(struct grad_sync *g, const struct op_table *op, struct param *params,
                    size_t count, struct comm *dense, struct comm *data, struct comm *expert,
                    size_t bucket_floats);
void grad_sync_fini(struct grad_sync *g);
/* Afterwards every copy of a parameter has the same gradient, to the bit. */
int grad_sync_run(struct grad_sync *g, struct err *err);
/* Norm of the whole model's gradient, each expert counted once; the same on every rank. *suspect:
 * name of the first tensor here whose gradient is not finite, or NULL. */
int grad_norm(const struct grad_sync *g, double *norm, const char **suspect, struct err *err);

#endif
