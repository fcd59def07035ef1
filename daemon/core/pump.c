#include "daemon/core/pump.h"

#include <stdlib.h>

#include "daemon/core/effect_list.h"
#include "daemon/core/load.h"
#include "daemon/core/state.h"
#include "lib/mem.h"

struct pump {
    struct core *core;              /* borrowed */
    const struct store_ops *ops;    /* borrowed */
    void *store;                    /* borrowed */
    const struct effect_sink *sink; /* borrowed */
    void *world;                    /* borrowed */
    struct effect_list released;    /* the last batch's memory, to be used again */
};

struct pump *pump_create(struct core *core, const struct store_ops *ops, void *store,
                         const struct effect_sink *sink, void *world)
{
    struct pump *pump = mem_alloc(sizeof *pump);
    *pump = (struct pump){.core = core, .ops = ops, .store = store, .sink = sink, .world = world};
    return pump;
}

void pump_destroy(struct pump *pump)
{
    if (pump != NULL) {
        effect_list_fini(&pump->released);
        free(pump);
    }
}

void pump_input(struct pump *pump, const struct input *in)
{
    struct input stamped = *in;
    if (stamped.now_ms < core_now_ms(pump->core)) {
        stamped.now_ms = core_now_ms(pump->core);
    }
    core_step(pump->core, &stamped);
}

bool pump_is_dirty(const struct pump *pump)
{
    return core_has_changes(pump->core) || pump->core->effects.count > 0;
}

static int commit(struct pump *pump, struct err *err)
{
    if (!core_has_changes(pump->core)) {
        return 0;
    }
    TRY(pump->ops->commit(pump->store, pump->core, core_now_ms(pump->core), err));
    core_committed(pump->core);
    return 0;
}

/* The sink may bring new inputs at once: their effects belong to the next batch. */
static void release(struct pump *pump)
{
    struct effect_list batch = pump->core->effects;
    pump->core->effects = pump->released;
    for (size_t i = 0; i < batch.count; i++) {
        pump->sink->release(pump->world, &batch.items[i]);
    }
    effect_list_reset(&batch);
    pump->released = batch;
}

int pump_flush(struct pump *pump, struct err *err)
{
#ifdef MUTANT_release_before_commit
    release(pump);
    return commit(pump, err);
#else
    TRY(commit(pump, err));
    release(pump);
    return 0;
#endif
}
