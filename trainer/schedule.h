/* What a step's place in the run makes of the job file's schedules (proto/schedule_spec.h): pure
 * functions of the step's number and the tokens trained on before it. */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stdint.h>

#include "proto/jobspec.h"

struct schedule_point {
    uint64_t step;    /* from 1 */
    uint64_t tokens;  /* trained on after the step */
    uint32_t batch;   /* sequences of sequence_length tokens, each cut into several when the context
                         is shorter */
    uint32_t context; /* tokens */
    double lr, bias_speed, mtp_lambda;
};
/* The step after that many steps and tokens. */
struct schedule_point schedule_next(const struct train_spec *spec, uint64_t steps, uint64_t tokens);

/* 0: always sequence_length. */
uint32_t schedule_shortest_context(const struct train_spec *spec);

/* The learning rate (reference deepseek-v3 §1.5): linear warm-up from 0 over the first steps, then
 * by tokens: constant, cosine down to lr_min, constant tails. tokens: after the step. */
double schedule_lr(const struct train_spec *spec, uint64_t step, uint64_t tokens);

/* The schedule as a table, a line for each step where something begins or ends, for people. Caller
 * frees. */
char *schedule_table(const struct train_spec *spec);

#endif
