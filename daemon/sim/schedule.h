/* How far training has come: useful milliseconds, tokens, steps. Tokens flow at a constant rate;
 * the batch may grow linearly with the tokens seen, so the steps are longer later on. */
#ifndef DAEMON_SIM_SCHEDULE_H
#define DAEMON_SIM_SCHEDULE_H

#include <stdint.h>

struct schedule {
    double tokens;      /* of the whole stage */
    double batch;       /* tokens a step, after the ramp */
    double batch_first; /* at the beginning of the ramp; equal to batch without one */
    double ramp;        /* tokens until batch is reached; 0: no ramp */
    int64_t useful_ms;  /* of the whole stage */
    uint64_t steps;     /* of the whole stage; filled by schedule_init */
};
void schedule_init(struct schedule *s);
/* Whole steps done after so much useful time. */
uint64_t schedule_step(const struct schedule *s, int64_t useful_ms);
/* Useful time after which a step is done; of the last one all of it. */
int64_t schedule_useful_ms(const struct schedule *s, uint64_t step);
/* The step at which the stretch that begins after `from` is saved: the last one within every_ms. */
uint64_t schedule_save_step(const struct schedule *s, uint64_t from, int64_t every_ms);
/* Checkpoints of an undisturbed run. */
uint64_t schedule_saves(const struct schedule *s, int64_t every_ms);
uint64_t schedule_tokens(const struct schedule *s, uint64_t step);

#endif
