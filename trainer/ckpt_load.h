/* Loading a committed checkpoint: MANIFEST.json says what belongs to it, every shard's size and
 * digest is checked (by one rank each), and every rank reads the tensors that it needs from
 * whichever shards hold them (reshard.h), so that the mesh may have changed. */
#ifndef TRAINER_CKPT_LOAD_H
#define TRAINER_CKPT_LOAD_H

#include "lib/err.h"
#include "trainer/ckpt_facts.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/comm.h"
#include "trainer/op.h"

enum ckpt_content {
    CKPT_ALL,     /* what there is: of a checkpoint of weights alone the moments stay as they are */
    CKPT_WEIGHTS, /* the moments stay as they are, also when they are there */
    CKPT_EMA,     /* the weights' moving average as the weights; ERR_CONFIG when there is none */
};

/* world: all ranks. Fills the tensors and *facts, which the caller ends
 * with ckpt_facts_fini. ERR_CORRUPT on every rank when anything is damaged, missing, twice there or
 * of another shape: the text names the file and the tensor. Collective. */
int ckpt_load(const char *dir, enum ckpt_content content, const struct ckpt_tensors *tensors,
              const struct op_table *op, struct comm *world, struct ckpt_facts *facts,
              struct err *err);

#endif
