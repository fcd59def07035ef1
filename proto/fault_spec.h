/* train.fault in the job file: breaks a run on purpose, to see what becomes of it. Every part is
 * off unless its step or count is given. */
#ifndef PROTO_FAULT_SPEC_H
#define PROTO_FAULT_SPEC_H

#include <stdint.h>

#include "lib/yaml.h"

struct buf;

struct fault_spec {
    uint64_t noise_at;        /* these sequences of the run's order, from 0, are random tokens: */
    uint64_t noise_sequences; /* so many; 0: none */
    uint64_t inf_step;        /* a gradient of this rank is infinite at this step; 0: never */
    uint32_t inf_rank;
    uint64_t nan_step; /* the same, not a number */
    uint32_t nan_rank;
    uint64_t flip_step; /* a bit of a weight that ranks share flips in this one's memory, after
                           this step; 0: never */
    uint32_t flip_rank;
    uint64_t attempts; /* only in the first so many; default 0: in all */
};

/* Reads train.fault over what *spec holds. */
int fault_spec_read(const struct yaml_item *item, struct fault_spec *spec, struct err *err);
/* {"noise_at": 0, ...}, every key. */
void fault_spec_json(struct buf *out, const struct fault_spec *spec);

#endif
