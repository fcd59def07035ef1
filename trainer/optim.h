/* AdamW over the parameters of this rank. Its state is one or more numbers an element, the moments,
 * each a plane of its own. A rank may have the state of a part of the elements only (ZeRO-1,
 * zero.h): it updates these and gets the other weights from those who have them.
 *
 * The step computes in FP32; where the recipe has the moments in BF16 they are rounded as it leaves
 * them, so that the next one and a checkpoint find BF16 numbers. Master weights and gradients are
 * FP32 always. */
#ifndef TRAINER_OPTIM_H
#define TRAINER_OPTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/jobspec.h"
#include "trainer/model.h"
#include "trainer/op.h"

/* First and second moment, and, where train.ema is set, the weights' moving average, in FP32 and in
 * host memory: ema += (1 - decay) (weight - ema) after each step, from the weight after the first
 * one on. NAN: there is none yet. */
enum optim_state { OPTIM_M, OPTIM_V, OPTIM_EMA, OPTIM_STATES };
/* "m", "v", "ema": in a checkpoint it is optimizer.<name>.<parameter>. */
const char *optim_state_name(enum optim_state state);

/* Consecutive elements of one parameter whose state is here. */
struct optim_part {
    size_t param, first, count;
    float *state[OPTIM_STATES]; /* owned; [count] each, FP32, back-end memory; EMA may be NULL */
};
struct optim {
    const struct op_table *op; /* borrowed */
    struct param *params;      /* borrowed from the model */
    size_t count;
    struct optim_part *part; /* owned; in the order of the parameters */
    size_t parts;
};

/* Elements whose weights lie in one of the windows. */
struct optim_window {
    const float *begin, *end;
};
/* windows NULL: all elements. Copies (param.copy) have no state here. */
void optim_init(struct optim *o, const struct op_table *op, struct param *params, size_t count,
                const struct optim_window *windows, size_t window_count);
/* Makes room for the moving average. */
void optim_keep_ema(struct optim *o);
void optim_fini(struct optim *o);
/* Whether weight decay applies: not to the groups of optimizer.no_decay. */
bool optim_decays(const struct train_spec *spec, const struct param *p);
/* One update of the parts here. step counts from 1; grad_scale multiplies every gradient
 * (clipping). The caller refreshes the model. */
void optim_step(struct optim *o, const struct train_spec *spec, uint64_t step, double lr,
                double grad_scale);
size_t optim_bytes(const struct optim *o);

#endif
