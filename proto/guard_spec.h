/* train.guard in the job file: when a loss counts as off course, and what is done then. */
#ifndef PROTO_GUARD_SPEC_H
#define PROTO_GUARD_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/yaml.h"

struct buf;

#define GUARD_WINDOW_MAX 500

struct guard_spec {
    bool enabled;      /* default true; false: only what is not finite stops the run, at once */
    uint32_t window;   /* steps of the median; default 100 */
    uint32_t settle;   /* steps before the median is taken for one; default 20, at most window */
    double mad;        /* over the limit: median + max(mad * MAD, margin); default 6 */
    double margin;     /* nats; default 0.5 */
    uint32_t patience; /* steps in a row over the limit; default 20 */
    double factor;     /* a loss of so many medians is one at once; default 5; 0: off */
    double grad_limit; /* a gradient norm over this is one at once; default 0: off */
    uint32_t rollback; /* steps at least; default 100 */
    uint32_t skip;     /* batches, at least; 0: none; default 300 */
    double lr_factor;  /* default 0.7 */
    uint32_t lr_steps; /* default 500 */
    uint32_t forget;   /* steps after which a rung no longer counts; default 1000 */
    uint32_t compare_every; /* steps after which the ranks compare what they hold in common; default
                               100; 0: only before they save. Whether enabled or not */
};

struct guard_spec guard_spec_default(void);
/* Reads train.guard over the defaults that *spec holds. */
int guard_spec_read(const struct yaml_item *item, struct guard_spec *spec, struct err *err);
/* {"enabled": true, ...}, every key. */
void guard_spec_json(struct buf *out, const struct guard_spec *spec);

#endif
