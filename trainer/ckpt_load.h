/* Loading a committed checkpoint: MANIFEST.json says what belongs to it, every shard's size and
 * digest is checked (by one rank each), and every rank reads the tensors that it needs from
 * whichever shard holds them, so that the layout may have changed. */
#ifndef TRAINER_CKPT_LOAD_H
#define TRAINER_CKPT_LOAD_H

#include "lib/err.h"
#include "trainer/ckpt_facts.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/comm.h"
#include "trainer/op.h"

/* world: all ranks; expert: the expert group. Fills the tensors and *facts. ERR_CORRUPT on every
 * rank when anything is damaged, missing, twice there or of another shape: the text names the file
 * and the tensor. Collective. */
int ckpt_load(const char *dir, const struct ckpt_tensors *tensors, const struct op_table *op,
              struct comm *world, struct comm *expert, struct ckpt_facts *facts, struct err *err);

/* The parts, which need no other rank. Shards of dir are open in `shards`, shard_count of them. */
struct safetensors;
int ckpt_check_unique(const struct safetensors *shards, size_t shard_count, uint64_t *total,
                      struct err *err);
int ckpt_read_tensors(const struct safetensors *shards, size_t shard_count,
                      const struct ckpt_tensors *tensors, const struct op_table *op,
                      struct err *err);

#endif
