/* Inputs in, one transaction, effects out. The only place that knows the order of things: decide,
 * commit, release. It sees the store and the world through two small tables, so that the simulator
 * drives the very same code. */
#ifndef DAEMON_CORE_PUMP_H
#define DAEMON_CORE_PUMP_H

#include "daemon/core/core.h"
#include "lib/err.h"

/* The persistence seam. commit writes every row the core listed since the last one, in one
 * transaction, durably. A failure is final: the caller exits and reloads. */
struct store_ops {
    int (*commit)(void *store, struct core *core, int64_t now_ms, struct err *err);
};
struct effect_sink {
    void (*release)(void *world, const struct effect *effect);
};

struct pump;
struct pump *pump_create(struct core *core, const struct store_ops *ops, void *store,
                         const struct effect_sink *sink, void *world);
void pump_destroy(struct pump *pump);
/* in->now_ms is a Unix time that should run like a monotonic clock: read the wall clock once at the
 * start and add the boot clock's progress. A stamp before the last one counts as the last one.
 * Decides at once, keeps the effects back. The input's memory may go afterwards. */
void pump_input(struct pump *pump, const struct input *in);
/* Commits what was decided since the last flush, then releases the effects in order. Nothing to do:
 * returns 0 at no cost. */
int pump_flush(struct pump *pump, struct err *err);
bool pump_is_dirty(const struct pump *pump);

#endif
