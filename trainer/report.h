/* What a run tells the world, from rank 0: the step line on stdout, the metric to the worker, the
 * TensorBoard events, the progress bar. Other ranks have one too, and it says nothing. */
#ifndef TRAINER_REPORT_H
#define TRAINER_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/tfevents.h"

struct reporter;
struct router;

/* One step. NAN: not there (no MTP, no experts, no validation this time). */
struct report_step {
    uint64_t step, tokens;
    double loss, mtp_loss, balance_maxvio, grad_norm, lr, valid_loss, valid_maxvio;
    const struct router *routers; /* borrowed */
    const double *layer_maxvio;   /* borrowed; of each router */
    size_t router_count;
    double tokens_per_s;
    int64_t step_ms, ckpt_stall_ms, data_wait_ms;
};
struct report {
    bool speaks;
    struct reporter *reporter; /* borrowed; may be NULL */
    struct tfevents events;
    uint64_t epoch, steps;
    double ms_per_step; /* smoothed */
};

/* tb_dir: NULL for no event files. first_step: the first that this process makes. */
int report_init(struct report *r, bool speaks, struct reporter *reporter, uint64_t epoch,
                uint64_t steps, const char *tb_dir, uint64_t first_step, struct err *err);
void report_step(struct report *r, const struct report_step *s);
void report_fini(struct report *r);

/* The contract's line (§4), without the newline. Returns its length; text is cut to bytes. */
size_t report_format(const struct report_step *s, char *text, size_t bytes);

#endif
