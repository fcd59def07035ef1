#include "trainer/schedule.h"

#include <inttypes.h>
#include <math.h>

#include "lib/buf.h"

static uint64_t tokens_after(const struct train_spec *spec, uint64_t steps)
{
    uint64_t reached, tokens;
    bool fits = schedule_length(spec, steps, UINT64_MAX, &reached, &tokens);
    return fits ? tokens : UINT64_MAX;
}

/* Tokens after which the cosine begins. */
static uint64_t decay_begin(const struct train_spec *spec)
{
    uint64_t warmup = spec->optimizer.warmup_steps, until = spec->plan.constant_until;
    uint64_t warm = tokens_after(spec, warmup + spec->optimizer.constant_steps);
    return until > warm ? until : warm;
}

static double tail_lr(const struct train_spec *spec, uint64_t tokens)
{
    const struct schedule_spec *s = &spec->plan;
    uint32_t i = 0;
    if (s->tails == 0 || tokens == s->decay_until) {
        return spec->optimizer.lr_min;
    }
    while (i + 1 < s->tails && s->tail[i].until < tokens) {
        i++;
    }
    return s->tail[i].lr;
}

double schedule_lr(const struct train_spec *spec, uint64_t step, uint64_t tokens)
{
    double lr = spec->optimizer.lr, lr_min = spec->optimizer.lr_min;
    uint64_t warmup = spec->optimizer.warmup_steps;
    if (step <= warmup) {
        return lr * (double)step / (double)warmup;
    }
    uint64_t begin = decay_begin(spec);
    uint64_t end = spec->plan.decay_until > 0 ? spec->plan.decay_until : spec->tokens;
    if (tokens <= begin) {
        return lr;
    }
    if (tokens >= end) {
        return tail_lr(spec, tokens);
    }
    double progress = (double)(tokens - begin) / (double)(end - begin);
    return lr_min + 0.5 * (lr - lr_min) * (1.0 + cos(acos(-1.0) * progress));
}

struct schedule_point schedule_next(const struct train_spec *spec, uint64_t steps, uint64_t tokens)
{
    const struct schedule_spec *s = &spec->plan;
    bool balances = s->bias_update_until == 0 || tokens < s->bias_update_until;
    bool first_lambda = s->mtp_lambda_until == 0 || tokens < s->mtp_lambda_until;
    struct schedule_point p = {
        .step = steps + 1,
        .batch = schedule_batch(spec, tokens),
        .context = schedule_context(spec, tokens),
        .bias_speed = balances ? spec->bias_update_speed : 0,
        .mtp_lambda = first_lambda ? spec->mtp_lambda : s->mtp_lambda_then,
    };
    p.tokens = tokens + (uint64_t)p.batch * spec->sequence_length;
    p.lr = schedule_lr(spec, p.step, p.tokens);
    return p;
}

uint32_t schedule_shortest_context(const struct train_spec *spec)
{
    uint32_t least = 0;
    for (uint32_t i = 0; i < spec->plan.contexts; i++) {
        uint32_t length = spec->plan.context[i].length;
        least = least == 0 || length < least ? length : least;
    }
    return least;
}

/* ---- the table */

#define PLACES_MAX 64
#define RAMP_LINES 8 /* of the batch's ramp */

static void put_line(struct buf *out, const struct train_spec *spec, uint64_t step)
{
    struct schedule_point p = schedule_next(spec, step - 1, tokens_after(spec, step - 1));
    buf_printf(out, "%12" PRIu64 " %20" PRIu64 " %8u %8u %11.4e %11g %11g\n", p.step, p.tokens,
               p.batch, p.context, p.lr, p.bias_speed, p.mtp_lambda);
}

/* The first step that begins at `tokens` or later, and the one before it. */
static void add_tokens(const struct train_spec *spec, uint64_t tokens, uint64_t *steps, size_t *n)
{
    uint64_t reached, at;
    if (tokens > 0 && schedule_length(spec, spec->steps, tokens, &reached, &at)) {
        steps[(*n)++] = reached;
        steps[(*n)++] = reached + 1;
    }
}

/* Sorted, without those outside the run and those twice there. */
static size_t clean(uint64_t *steps, size_t n, uint64_t last)
{
    size_t kept = 0;
    for (size_t i = 1; i < n; i++) {
        uint64_t x = steps[i];
        size_t at = i;
        for (; at > 0 && steps[at - 1] > x; at--) {
            steps[at] = steps[at - 1];
        }
        steps[at] = x;
    }
    for (size_t i = 0; i < n; i++) {
        if (steps[i] >= 1 && steps[i] <= last && (kept == 0 || steps[kept - 1] != steps[i])) {
            steps[kept++] = steps[i];
        }
    }
    return kept;
}

char *schedule_table(const struct train_spec *spec)
{
    const struct schedule_spec *s = &spec->plan;
    uint64_t steps[PLACES_MAX + 4 * SCHEDULE_PHASES_MAX + 2 * RAMP_LINES];
    size_t n = 0;
    struct buf out = {0};
    steps[n++] = 1;
    steps[n++] = spec->optimizer.warmup_steps;
    steps[n++] = spec->steps;
    add_tokens(spec, decay_begin(spec), steps, &n);
    add_tokens(spec, s->decay_until > 0 ? s->decay_until : spec->tokens, steps, &n);
    add_tokens(spec,
               decay_begin(spec) / 2 + (s->decay_until > 0 ? s->decay_until : spec->tokens) / 2,
               steps, &n);
    add_tokens(spec, s->bias_update_until, steps, &n);
    add_tokens(spec, s->mtp_lambda_until, steps, &n);
    for (uint32_t i = 0; i < s->tails; i++) {
        add_tokens(spec, s->tail[i].until, steps, &n);
    }
    for (uint32_t i = 0; i < s->contexts; i++) {
        add_tokens(spec, s->context[i].until, steps, &n);
    }
    for (uint64_t i = 1; s->batch.from > 0 && i <= RAMP_LINES; i++) {
        add_tokens(spec, s->batch.until / RAMP_LINES * i, steps, &n);
    }
    n = clean(steps, n, spec->steps);
    buf_printf(&out, "%12s %20s %8s %8s %11s %11s %11s\n", "STEP", "TOKENS", "BATCH", "CONTEXT",
               "LR", "BIAS SPEED", "MTP LAMBDA");
    for (size_t i = 0; i < n; i++) {
        put_line(&out, spec, steps[i]);
    }
    buf_cstr(&out);
    return (char *)out.data;
}
