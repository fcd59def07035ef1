/* Micro-batches through the stages of a pipeline: what pipeline_schedule.h says, carried out. A
 * pipeline of one rank with one stage is the plain loop of forward and backward passes. */
#ifndef TRAINER_PIPELINE_H
#define TRAINER_PIPELINE_H

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/mesh.h"
#include "trainer/model.h"
#include "proto/pipeline_schedule.h"

struct pipeline {
    struct model *model;       /* borrowed */
    const struct op_table *op; /* borrowed */
    struct comm *peers;        /* borrowed; the ranks of this pipeline, for send and recv */
    enum pipeline_kind kind;
    uint32_t ranks, rank;
    uint32_t micros; /* of the schedule `train` */
    struct pipeline_schedule train;
    uint32_t slots[PIPELINE_STAGES_MAX];
    float *message; /* owned; host memory of one */
    /* Of the last micro-batch's backward pass, where that is whole and this rank has one stage. May
     * be set after pipeline_init. */
    struct model_final final;
};

/* Fills in which stages of the model this rank holds, with slots for that many micro-batches a
 * step. ERR_CONFIG when there are more stages than layers or too few micro-batches. */
int pipeline_plan(struct model_options *options, enum pipeline_kind kind, const struct mesh *mesh,
                  uint32_t micros, struct err *err);

/* After model_create with such options. peers NULL: a pipeline of one rank. */
void pipeline_init(struct pipeline *p, struct model *model, const struct model_options *options,
                   enum pipeline_kind kind, struct comm *peers);
void pipeline_fini(struct pipeline *p); /* a zeroed one is fine */

/* Whose tokens a rank needs: [micro_batch][sequence_length + 1] of micro-batch i; valid until the
 * next call. */
struct pipeline_feed {
    void *ctx;
    int (*tokens)(void *ctx, uint32_t i, const int32_t **tokens, struct err *err);
};
/* micros of them forward and backward: as many model_train. Losses come to the ranks with the last
 * stage. Collective over the pipeline. ERR_CONFIG when micros are too few, or more than planned. */
int pipeline_train(struct pipeline *p, const struct pipeline_feed *feed, uint32_t micros,
                   double grad_scale, struct model_losses *sums, struct err *err);
/* micros of them forward: as many model_eval. */
int pipeline_eval(struct pipeline *p, const struct pipeline_feed *feed, uint32_t micros,
                  bool count_load, struct model_losses *sums, struct err *err);

#endif
