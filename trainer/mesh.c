#include "trainer/mesh.h"

int mesh_init(struct mesh *m, uint32_t world, uint32_t rank, uint32_t pipeline, uint32_t expert,
              struct err *err)
{
    if (pipeline == 0 || expert == 0) {
        return err_set(err, ERR_CONFIG, "parallel: pipeline %u, expert %u: each must be at least 1",
                       pipeline, expert);
    }
    uint64_t stage = (uint64_t)pipeline * expert;
    if (world == 0 || world % stage != 0) {
        return err_set(err, ERR_CONFIG,
                       "parallel: %u rank%s cannot form pipeline %u x expert %u (use a multiple of "
                       "%llu ranks)",
                       world, world == 1 ? "" : "s", pipeline, expert, (unsigned long long)stage);
    }
    if (rank >= world) {
        return err_set(err, ERR_CONFIG, "rank %u is not below the number of ranks, %u", rank,
                       world);
    }
    uint32_t data = (uint32_t)(world / stage);
    *m = (struct mesh){
        .pipeline = pipeline,
        .expert = expert,
        .data = data,
        .rank = rank,
        .world = world,
        .pipeline_index = rank / (data * expert),
        .expert_index = rank % expert,
        .data_index = rank / expert % data,
    };
    return 0;
}

uint32_t mesh_batch_index(const struct mesh *m)
{
    return m->data_index * m->expert + m->expert_index;
}

uint32_t mesh_batch_ways(const struct mesh *m)
{
    return m->data * m->expert;
}

void mesh_expert_range(const struct mesh *m, uint32_t n, uint32_t expert_index, uint32_t *first,
                       uint32_t *count)
{
    *first = (uint32_t)((uint64_t)n * expert_index / m->expert);
    *count = (uint32_t)((uint64_t)n * (expert_index + 1) / m->expert) - *first;
}
