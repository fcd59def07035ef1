/* The model of a checkpoint, for use on one process whatever the layout it was trained in. */
#ifndef TRAINER_MODEL_OPEN_H
#define TRAINER_MODEL_OPEN_H

#include <stdint.h>

#include "lib/err.h"
#include "trainer/ckpt_facts.h"
#include "trainer/mesh.h"
#include "trainer/model.h"

struct open_model {
    struct model_config config;
    struct ckpt_facts facts;
    struct mesh mesh;
    struct comm *self;
    struct model *model;
    bool ema; /* set it after model_open_facts: the weights' moving average is wanted */
};

/* What the checkpoint says of itself, without its tensors. config_path: config.json for a
 * checkpoint that does not hold its own, or NULL. ERR_CORRUPT when dir is no whole checkpoint. */
int model_open_facts(struct open_model *o, const char *dir, const char *config_path,
                     struct err *err);
/* After model_open_facts: the weights, checked against their digests. One sequence at a time. */
int model_open_weights(struct open_model *o, const char *dir, const struct op_table *op,
                       enum precision precision, uint32_t sequence_length, struct err *err);
void model_open_fini(struct open_model *o); /* a zeroed one is fine */

/* OMP_NUM_THREADS, else as many as the process may use. */
int model_open_threads(void);

#endif
