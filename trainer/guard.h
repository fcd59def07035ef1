/* What to do when the loss leaves its course (docs/user-guide.md, "When the loss spikes"). Pure:
 * the state is a value that goes with the checkpoint, a decision is a function of the settings, the
 * decisions before, the state and one step's numbers. The same on every rank and in every repeat.
 *
 * The ladder, one rung a trigger:
 *   replay    from the newest checkpoint. The trigger comes back with the same bits: the numbers
 * are the model's own, next rung. Other bits: some machine computes wrongly (`corrupt`). rollback
 * to a checkpoint at least so many steps before, and pass over the next batches lower     the same,
 * and a lower learning rate for a while hold      a person has to look Rungs that were taken long
 * ago do not count. */
#ifndef TRAINER_GUARD_H
#define TRAINER_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/guard_spec.h"

enum guard_trigger {
    GUARD_CALM,
    GUARD_NOT_FINITE,
    GUARD_JUMP,
    GUARD_DRIFT,
    GUARD_REPLICAS /* ranks hold different values of one tensor */
};
enum guard_action {
    GUARD_GO_ON,
    GUARD_REPLAY,
    GUARD_ROLLBACK,
    GUARD_LOWER,
    GUARD_HOLD,
    GUARD_CORRUPT
};

/* Goes with the checkpoint. */
struct guard_state {
    double loss[GUARD_WINDOW_MAX]; /* of the last steps that were on course, oldest first */
    uint32_t count;
    uint32_t above;    /* steps in a row over the limit */
    uint32_t applied;  /* decisions of this run that brought it here */
    double lr_factor;  /* until lr_until; 0: none */
    uint64_t lr_until; /* step */
};
struct guard_sample {
    uint64_t step;
    double loss, mtp_loss, grad_norm; /* mtp_loss: NAN where has_mtp is false */
    bool has_mtp;
};
/* One line of the run's guard.jsonl. */
struct guard_decision {
    enum guard_action action;
    enum guard_trigger trigger;
    uint64_t epoch, step; /* where the trigger was seen */
    double loss, mtp_loss, grad_norm;
    double median, limit; /* of the loss; NAN: the window was not filled enough */
    uint64_t back_to;     /* ROLLBACK, LOWER: at most this step */
    uint64_t skip;        /* batches from there on, or more: past the trigger; 0: none */
    double lr_factor;
    uint64_t lr_steps;
    bool replayed;    /* a replay on the same layout has shown the same numbers */
    int64_t odd_rank; /* CORRUPT: the one rank that is not as all others; -1: cannot be told */
    char layout[96];  /* replays are compared on the same layout alone */
    char text[640];   /* for people */
};
struct guard_history {
    struct guard_decision *item; /* owned */
    size_t count;
};

/* Before the step's update is applied. GUARD_GO_ON: *state has taken in the step. Else *decision is
 * what to record, and the step is not to be applied. layout: ranks and threads, in words. */
enum guard_action guard_step(const struct guard_spec *spec, const struct guard_history *history,
                             struct guard_state *state, const struct guard_sample *sample,
                             uint64_t epoch, const char *layout, struct guard_decision *decision);
/* On a run that stands at a checkpoint: takes over the decisions that its state does not know yet.
 * Returns how many batches to pass over. */
uint64_t guard_take_over(const struct guard_history *history, struct guard_state *state,
                         uint64_t step);
/* The last one that goes back and that it is to take over; NULL: none. */
const struct guard_decision *guard_going_back(const struct guard_history *history,
                                              uint32_t applied);
/* For the step: 1 or less. */
double guard_lr_factor(const struct guard_state *state, uint64_t step);
/* Did a later decision give up what lies behind this checkpoint? applied: of its state. */
bool guard_gave_up(const struct guard_history *history, uint32_t applied, uint64_t step);
/* The replay that has yet to come to its step, or NULL. */
const struct guard_decision *guard_replaying(const struct guard_history *history);

const char *guard_action_name(enum guard_action action);
/* Writes d->text, from the rest; of GUARD_REPLICAS it is what is there already. */
void guard_explain(struct guard_decision *d);
/* Replicas differ at this step: CORRUPT. */
struct guard_decision guard_replicas_differ(uint64_t epoch, uint64_t step, int64_t odd_rank,
                                            const char *layout, const char *text);
const char *guard_trigger_name(enum guard_trigger trigger);

#endif
