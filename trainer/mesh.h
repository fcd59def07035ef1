/* Rank arithmetic. Pure. world = pipeline * data * expert; expert is the innermost axis, so that an
 * expert group sits on neighbouring ranks: rank = (pipeline_index * data + data_index) * expert +
 * expert_index.
 *
 * Every rank of one pipeline stage works on its own sequences; dense parameters are replicated over
 * all of them (the dense group, data x expert ranks), an expert's parameters over the ranks with
 * the same expert index (the data group). */
#ifndef TRAINER_MESH_H
#define TRAINER_MESH_H

#include <stdint.h>

#include "lib/err.h"

struct mesh {
    uint32_t pipeline, expert, data; /* sizes */
    uint32_t rank, world;
    uint32_t pipeline_index, expert_index, data_index;
};

int mesh_init(struct mesh *m, uint32_t world, uint32_t rank, uint32_t pipeline, uint32_t expert,
              struct err *err);
/* Position among the ranks that share the batch: data_index * expert + expert_index, of data *
 * expert. */
uint32_t mesh_batch_index(const struct mesh *m);
uint32_t mesh_batch_ways(const struct mesh *m);
/* Experts [first, first + count) of n live on expert index i. */
void mesh_expert_range(const struct mesh *m, uint32_t n, uint32_t expert_index, uint32_t *first,
                       uint32_t *count);

#endif
