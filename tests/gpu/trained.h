/* A small training run on any back end, for check_train.c and bench_model.c: the trainer's own
 * model and optimiser on one rank, without its data, files and coordinator. */
#ifndef TESTS_GPU_TRAINED_H
#define TESTS_GPU_TRAINED_H

#include "proto/model_config.h"
#include "trainer/model.h"
#include "trainer/optim.h"

struct trained {
    const struct op_table *op;
    struct model_config config;
    struct mesh mesh;
    struct comm *comm;
    struct model *model;
    struct optim optim;
    struct train_spec spec; /* the optimiser's part of it */
    struct recipe recipe;
    uint32_t micro_batch, sequence_length;
};

/* V3's shape: MLA, sigmoid router with groups, a shared expert. What is 0 in `like` is filled in.
 */
struct model_config trained_config(struct model_config like);
/* stage NULL: the whole model. Ends the program when the model is impossible. */
void trained_create(struct trained *t, const struct op_table *op, const struct model_config *config,
                    enum precision precision, uint32_t micro_batch, uint32_t sequence_length,
                    const struct model_stage *stage);
void trained_destroy(struct trained *t);
/* One step on micro_batch sequences of sequence_length + 1 tokens. Returns the mean loss. step
 * counts from 1. */
double trained_step(struct trained *t, const int32_t *tokens, uint64_t step);

/* Weights and moments on the host, in one piece. */
struct snapshot {
    float *data;
    size_t count;
};
struct snapshot trained_save(const struct trained *t); /* free(data) */
void trained_load(struct trained *t, const struct snapshot *s);

#endif
