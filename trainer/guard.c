#include "trainer/guard.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const actions[] = {
    [GUARD_GO_ON] = "go_on", [GUARD_REPLAY] = "replay", [GUARD_ROLLBACK] = "rollback",
    [GUARD_LOWER] = "lower", [GUARD_HOLD] = "hold",     [GUARD_CORRUPT] = "corrupt"};

const char *guard_action_name(enum guard_action action)
{
    return actions[action];
}

const char *guard_trigger_name(enum guard_trigger trigger)
{
    static const char *const names[] = {"calm", "not_finite", "jump", "drift", "replicas"};
    return names[trigger];
}

/* ---- is it off course? */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *x, uint32_t n)
{
    qsort(x, n, sizeof *x, ascending);
    return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* NAN each while too few steps were on course. */
static void measure(const struct guard_spec *spec, const struct guard_state *state, double *median,
                    double *limit)
{
    double x[GUARD_WINDOW_MAX];
    *median = *limit = NAN;
    if (state->count < spec->settle) {
        return;
    }
    memcpy(x, state->loss, state->count * sizeof *x);
    *median = median_of(x, state->count);
    for (uint32_t i = 0; i < state->count; i++) {
        x[i] = fabs(state->loss[i] - *median);
    }
    *limit = *median + fmax(spec->mad * median_of(x, state->count), spec->margin);
}

static void take_in(const struct guard_spec *spec, struct guard_state *state, double loss)
{
    /* the job file's window may have become shorter */
    uint32_t drop = state->count >= spec->window ? state->count - spec->window + 1 : 0;
    memmove(state->loss, state->loss + drop, (state->count - drop) * sizeof *state->loss);
    state->count -= drop;
    state->loss[state->count++] = loss;
    state->above = 0;
}

static enum guard_trigger look(const struct guard_spec *spec, struct guard_state *state,
                               const struct guard_sample *s, double *median, double *limit)
{
    measure(spec, state, median, limit);
#ifndef MUTANT_guard_finite
    if (!isfinite(s->loss) || !isfinite(s->grad_norm) || (s->has_mtp && !isfinite(s->mtp_loss))) {
        return GUARD_NOT_FINITE;
    }
#endif
    bool jump = spec->factor > 0 && s->loss > fmax(spec->factor * *median, *median + spec->margin);
    if ((!isnan(*median) && jump) || (spec->grad_limit > 0 && s->grad_norm > spec->grad_limit)) {
        return GUARD_JUMP;
    }
    if (isnan(*limit) || s->loss <= *limit) {
        take_in(spec, state, s->loss);
        return GUARD_CALM;
    }
    state->above++;
    return state->above >= spec->patience ? GUARD_DRIFT : GUARD_CALM;
}

/* ---- what is done then */

static bool is_rung(enum guard_action action)
{
    return action == GUARD_REPLAY || action == GUARD_ROLLBACK || action == GUARD_LOWER;
}

static enum guard_action next_rung(const struct guard_spec *spec,
                                   const struct guard_history *history, uint64_t step)
{
    static const enum guard_action ladder[] = {GUARD_REPLAY, GUARD_ROLLBACK, GUARD_LOWER,
                                               GUARD_HOLD};
    size_t taken = 0;
    for (size_t i = history->count; i-- > 0 && is_rung(history->item[i].action);) {
#ifdef MUTANT_guard_forgets
        continue;
#endif
        taken += history->item[i].step + spec->forget > step;
    }
    return ladder[taken < 3 ? taken : 3];
}

const struct guard_decision *guard_replaying(const struct guard_history *history)
{
    const struct guard_decision *last =
        history->count > 0 ? &history->item[history->count - 1] : NULL;
    return last != NULL && last->action == GUARD_REPLAY ? last : NULL;
}

static bool same_number(double a, double b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

/* Does the replay show other numbers than the run did? */
static bool differs(const struct guard_decision *was, enum guard_trigger trigger,
                    const struct guard_sample *s, const char *layout)
{
    if (was == NULL || strcmp(was->layout, layout) != 0 || s->step > was->step) {
        return false;
    }
#ifdef MUTANT_guard_same_bits
    return false;
#endif
    if (s->step < was->step) {
        return trigger != GUARD_CALM;
    }
    return !same_number(s->loss, was->loss) || !same_number(s->grad_norm, was->grad_norm) ||
           (s->has_mtp && !same_number(s->mtp_loss, was->mtp_loss));
}

enum guard_action guard_step(const struct guard_spec *spec, const struct guard_history *history,
                             struct guard_state *state, const struct guard_sample *sample,
                             uint64_t epoch, const char *layout, struct guard_decision *decision)
{
    double median;
    double limit;
    enum guard_trigger trigger = look(spec, state, sample, &median, &limit);
    bool corrupt = differs(guard_replaying(history), trigger, sample, layout);
    if (trigger == GUARD_CALM && !corrupt) {
        return GUARD_GO_ON;
    }
    *decision = (struct guard_decision){
        .action = corrupt ? GUARD_CORRUPT : next_rung(spec, history, sample->step),
        .trigger = trigger,
        .epoch = epoch,
        .step = sample->step,
        .loss = sample->loss,
        .mtp_loss = sample->has_mtp ? sample->mtp_loss : NAN,
        .grad_norm = sample->grad_norm,
        .median = median,
        .limit = limit,
        .odd_rank = -1,
    };
    const struct guard_decision *replay = guard_replaying(history);
    decision->replayed = !corrupt && replay != NULL && replay->step == sample->step &&
                         strcmp(replay->layout, layout) == 0;
    snprintf(decision->layout, sizeof decision->layout, "%s", layout);
    if (decision->action == GUARD_ROLLBACK || decision->action == GUARD_LOWER) {
        decision->back_to = sample->step > spec->rollback ? sample->step - spec->rollback : 0;
        decision->skip = spec->skip;
    }
    if (decision->action == GUARD_LOWER) {
        decision->lr_factor = spec->lr_factor;
        decision->lr_steps = spec->lr_steps;
    }
    return decision->action;
}

/* ---- on the way again */

static bool goes_back(const struct guard_decision *d)
{
    return d->action == GUARD_ROLLBACK || d->action == GUARD_LOWER;
}

/* From the checkpoint at this step, which may be older than the decision asked for: up to where
 * they would end from there, and past the trigger in any case. */
static uint64_t batches_over(const struct guard_decision *d, uint64_t step)
{
    uint64_t end = d->back_to + d->skip > d->step ? d->back_to + d->skip : d->step;
    return d->skip == 0 || end <= step ? 0 : end - step;
}

uint64_t guard_take_over(const struct guard_history *history, struct guard_state *state,
                         uint64_t step)
{
    uint64_t skip = 0;
    for (size_t i = state->applied; i < history->count; i++) {
        const struct guard_decision *d = &history->item[i];
        if (goes_back(d)) {
            skip += batches_over(d, step);
            state->above = 0;
        }
        if (d->action == GUARD_LOWER) {
            state->lr_factor = guard_lr_factor(state, step + 1) * d->lr_factor;
            state->lr_until = step + d->lr_steps;
        }
    }
    state->applied = (uint32_t)history->count;
    return skip;
}

const struct guard_decision *guard_going_back(const struct guard_history *history, uint32_t applied)
{
    for (size_t i = history->count; i > applied; i--) {
        if (goes_back(&history->item[i - 1])) {
            return &history->item[i - 1];
        }
    }
    return NULL;
}

double guard_lr_factor(const struct guard_state *state, uint64_t step)
{
    return state->lr_factor > 0 && step <= state->lr_until ? state->lr_factor : 1;
}

bool guard_gave_up(const struct guard_history *history, uint32_t applied, uint64_t step)
{
    for (size_t i = applied; i < history->count; i++) {
#ifndef MUTANT_guard_comes_back
        if (goes_back(&history->item[i]) && step > history->item[i].back_to) {
            return true;
        }
#else
        (void)step;
#endif
    }
    return false;
}

/* ---- for people */

static void explain_trigger(const struct guard_decision *d, char *text, size_t bytes)
{
    char mtp[40] = "";
    if (!isnan(d->mtp_loss) || (d->trigger == GUARD_NOT_FINITE && isfinite(d->loss))) {
        snprintf(mtp, sizeof mtp, ", MTP loss %g", d->mtp_loss);
    }
    int n = snprintf(text, bytes, "step %" PRIu64 ": loss %g%s, gradient norm %g", d->step, d->loss,
                     mtp, fabs(d->grad_norm));
    const char *what = d->trigger == GUARD_NOT_FINITE ? ": not finite"
                       : d->trigger == GUARD_JUMP     ? ": a jump"
                       : d->trigger == GUARD_DRIFT    ? ": too long over the limit"
                                                      : "";
    n += snprintf(text + n, bytes - (size_t)n, "%s", what);
    if (d->trigger != GUARD_NOT_FINITE && !isnan(d->median)) {
        snprintf(text + n, bytes - (size_t)n, " (median %g, limit %g)", d->median, d->limit);
    }
}

void guard_explain(struct guard_decision *d)
{
    char why[280];
    char lower[80] = "";
    if (d->trigger == GUARD_REPLICAS) {
        return;
    }
    explain_trigger(d, why, sizeof why);
    size_t used = strlen(why);
    if (d->replayed) {
        snprintf(why + used, sizeof why - used, "; a replay gave the same numbers");
    }
    switch (d->action) {
    case GUARD_REPLAY:
        snprintf(d->text, sizeof d->text,
                 "%s; the step was not applied. Replay from the newest checkpoint", why);
        break;
    case GUARD_ROLLBACK:
    case GUARD_LOWER:
        if (d->action == GUARD_LOWER) {
            snprintf(lower, sizeof lower, ", %g times the learning rate for %" PRIu64 " steps",
                     d->lr_factor, d->lr_steps);
        }
        snprintf(d->text, sizeof d->text,
                 "%s; the step was not applied. Back to step %" PRIu64 ", pass over %" PRIu64
                 " batches%s",
                 why, d->back_to, d->skip, lower);
        break;
    case GUARD_CORRUPT:
        snprintf(
            d->text, sizeof d->text,
            "%s; a replay of the same steps on the same layout gave other numbers than the run "
            "before: a machine computes wrongly or memory is damaged (test the nodes)",
            why);
        break;
    default:
        snprintf(d->text, sizeof d->text,
                 "%s; the step was not applied. Replay, another stretch of data and a lower rate "
                 "did not help (a lower lr, or resume from an earlier checkpoint)",
                 why);
        break;
    }
}

struct guard_decision guard_replicas_differ(uint64_t epoch, uint64_t step, int64_t odd_rank,
                                            const char *layout, const char *text)
{
    struct guard_decision d = {.action = GUARD_CORRUPT,
                               .trigger = GUARD_REPLICAS,
                               .epoch = epoch,
                               .step = step,
                               .loss = NAN,
                               .mtp_loss = NAN,
                               .grad_norm = NAN,
                               .median = NAN,
                               .limit = NAN,
                               .odd_rank = odd_rank};
    snprintf(d.layout, sizeof d.layout, "%s", layout);
    snprintf(d.text, sizeof d.text, "step %" PRIu64 ": %s", step, text);
    return d;
}
