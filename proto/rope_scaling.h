/* How a model reads positions beyond those it was trained on: rope_scaling of a Hugging Face
 * config.json, and train.rope_scaling of a job that extends the context. Formulas: trainer/rope.c.
 */
#ifndef PROTO_ROPE_SCALING_H
#define PROTO_ROPE_SCALING_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/yaml.h"

struct buf;

struct rope_scaling {
    bool yarn; /* else none, and all others are 0 */
    double factor, beta_fast, beta_slow, mscale, mscale_all_dim;
    uint32_t original_max_position_embeddings; /* 0, in a job only: the model file's */
};

/* Of a config.json, which others write: keys without bearing are ignored. theta: rope_theta,
 * changed where the map has it. */
int rope_scaling_read_model(const struct yaml_item *item, struct rope_scaling *r, double *theta,
                            struct err *err);
/* Of a job: {type: yarn, factor: 40, ...}; what is left out is as in config.json. */
int rope_scaling_read_job(const struct yaml_item *item, struct rope_scaling *r, struct err *err);
/* A map that both read back; null without YaRN. Numbers have a point, for readers that tell 1 from
 * 1.0. */
void rope_scaling_json(struct buf *out, const struct rope_scaling *r);

#endif
