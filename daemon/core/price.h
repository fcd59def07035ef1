/* What an accelerator costs, from when. A price that was charged never changes; a new one has a
 * later effective date. */
#ifndef DAEMON_CORE_PRICE_H
#define DAEMON_CORE_PRICE_H

#include "daemon/core/state.h"

/* Id of the price of this accelerator model at that time: its own, else that of '*'. There always
 * is one. */
uint64_t price_at(const struct core *core, const char *model, int64_t at_ms);
int64_t price_micro_usd(const struct core *core, uint64_t price_id);
/* The next effective date after that time, INT64_MAX when there is none. */
int64_t price_next_change(const struct core *core, int64_t after_ms);
/* Adds a price. The store does this at load, tests directly. */
void price_add(struct core *core, const char *model, int64_t effective_ms,
               int64_t micro_usd_per_gpu_hour);
/* Makes sure that '*' has a price from the beginning of time: 0, if nobody said otherwise. */
void price_ensure_default(struct core *core);

#endif
