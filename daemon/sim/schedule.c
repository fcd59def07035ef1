#include "daemon/sim/schedule.h"

#include <math.h>

/* In the ramp a step takes batch_first + growth * tokens, so tokens grow as an exponential of the
 * step, and the step is a logarithm of the tokens. */
static double growth(const struct schedule *s)
{
    return s->ramp > 0 ? (s->batch - s->batch_first) / s->ramp : 0;
}

static double ramp_tokens(const struct schedule *s)
{
    return growth(s) > 0 ? s->ramp : 0;
}

static double steps_at(const struct schedule *s, double tokens)
{
    double g = growth(s), ramp = ramp_tokens(s);
    if (tokens < ramp) {
        return log1p(g * tokens / s->batch_first) / g;
    }
    double ramp_steps = ramp > 0 ? log(s->batch / s->batch_first) / g : 0;
    return ramp_steps + (tokens - ramp) / s->batch;
}

static double tokens_at(const struct schedule *s, double steps)
{
    double g = growth(s), ramp = ramp_tokens(s);
    double ramp_steps = ramp > 0 ? log(s->batch / s->batch_first) / g : 0;
    return steps < ramp_steps ? s->batch_first / g * expm1(g * steps)
                              : ramp + (steps - ramp_steps) * s->batch;
}

void schedule_init(struct schedule *s)
{
    s->steps = (uint64_t)ceil(steps_at(s, s->tokens) - 1e-6);
    s->steps = s->steps > 0 ? s->steps : 1;
}

uint64_t schedule_step(const struct schedule *s, int64_t useful_ms)
{
    if (useful_ms >= s->useful_ms) {
        return s->steps;
    }
    double tokens = s->tokens * ((double)useful_ms / (double)s->useful_ms);
    uint64_t step = (uint64_t)(steps_at(s, tokens) + 1e-6);
    step = step < s->steps ? step : s->steps - 1;
    /* Rounding must not make a step done before its own time. */
    while (step > 0 && schedule_useful_ms(s, step) > useful_ms) {
        step--;
    }
    return step;
}

int64_t schedule_useful_ms(const struct schedule *s, uint64_t step)
{
    if (step >= s->steps) {
        return s->useful_ms;
    }
    double ms = tokens_at(s, (double)step) / s->tokens * (double)s->useful_ms;
    return (int64_t)ceil(ms - 1e-6);
}

uint64_t schedule_save_step(const struct schedule *s, uint64_t from, int64_t every_ms)
{
    uint64_t step = schedule_step(s, schedule_useful_ms(s, from) + every_ms);
    return step > from ? step : from + 1;
}

uint64_t schedule_saves(const struct schedule *s, int64_t every_ms)
{
    uint64_t saves = 0;
    for (uint64_t step = 0; step < s->steps; saves++) {
        step = schedule_save_step(s, step, every_ms);
    }
    return saves;
}

uint64_t schedule_tokens(const struct schedule *s, uint64_t step)
{
    double tokens = step >= s->steps ? s->tokens : tokens_at(s, (double)step);
    return (uint64_t)(tokens + 0.5);
}
