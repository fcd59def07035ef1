/* train.schedule in the job file: what changes while a run goes on, by tokens trained on before the
 * step (docs/recipe.md). Zeroed: nothing does. */
#ifndef PROTO_SCHEDULE_SPEC_H
#define PROTO_SCHEDULE_SPEC_H

#include <stdint.h>

#include "lib/yaml.h"

#define SCHEDULE_PHASES_MAX 16
#define SCHEDULE_RAMP_MAX   4096 /* batch sizes on the way */

struct buf;
struct train_spec;

struct schedule_spec {
    /* The learning rate after the warm-up: constant, cosine to lr_min, constant tails. */
    uint64_t constant_until; /* 0: warmup_steps + constant_steps */
    uint64_t decay_until;    /* 0: the end of the run */
    struct {
        uint64_t until; /* the last one's: 0, the end of the run */
        double lr;
    } tail[SCHEDULE_PHASES_MAX];
    uint32_t tails;
    uint64_t bias_update_until; /* 0 afterwards; 0: always bias_update_speed */
    uint64_t mtp_lambda_until;  /* mtp_lambda_then afterwards; 0: always mtp_lambda */
    double mtp_lambda_then;
    struct {
        uint32_t from, increment; /* sequences; from 0: global_batch always */
        uint64_t until;           /* where global_batch is reached */
    } batch;
    struct {
        uint64_t until;
        uint32_t length;
    } context[SCHEDULE_PHASES_MAX]; /* then sequence_length */
    uint32_t contexts;
};

/* Reads train.schedule, a map or the name of a preset, and checks it; t has all other values but
 * steps and tokens of a run whose length is still to be derived. unit: what the batches of a preset
 * are multiples of; without one that fits it has no ramp. */
int schedule_spec_read(const struct yaml_item *item, struct train_spec *t, uint64_t unit,
                       struct err *err);
/* {"constant_until": 1000, ...}: the keys that are set; presets come out as what they stand for. */
void schedule_spec_json(struct buf *out, const struct schedule_spec *s);

/* Sequences of the step that begins after that many tokens. */
uint32_t schedule_batch(const struct train_spec *t, uint64_t tokens);
/* Tokens of a context at that point. */
uint32_t schedule_context(const struct train_spec *t, uint64_t tokens);
/* The first step count at which a run has both many steps or that many tokens, whichever comes
 * first, and the tokens it has then; UINT64_MAX: no limit. False: the tokens do not fit 64 bits. */
bool schedule_length(const struct train_spec *t, uint64_t steps_max, uint64_t tokens_max,
                     uint64_t *steps, uint64_t *tokens);

#endif
