#include "daemon/core/price.h"

#include <assert.h>
#include <string.h>

#include "lib/mem.h"

static const struct price_row *newest(const struct core *core, const char *model, int64_t at_ms)
{
    const struct price_row *best = NULL;
    for (size_t i = 0; i < core->price_count; i++) {
        const struct price_row *row = &core->prices[i]->row;
        if (row->effective_ms <= at_ms && strcmp(row->model, model) == 0 &&
            (best == NULL || row->effective_ms > best->effective_ms)) {
            best = row;
        }
    }
    return best;
}

uint64_t price_at(const struct core *core, const char *model, int64_t at_ms)
{
    const struct price_row *row = newest(core, model, at_ms);
    if (row == NULL) {
        row = newest(core, "*", at_ms);
    }
    assert(row != NULL); /* price_ensure_default */
    return row->id;
}

int64_t price_micro_usd(const struct core *core, uint64_t price_id)
{
    assert(price_id >= 1 && price_id <= core->price_count);
    return core->prices[price_id - 1]->row.micro_usd_per_gpu_hour;
}

int64_t price_next_change(const struct core *core, int64_t after_ms)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < core->price_count; i++) {
        int64_t effective_ms = core->prices[i]->row.effective_ms;
        if (effective_ms > after_ms && effective_ms < next) {
            next = effective_ms;
        }
    }
    return next;
}

void price_add(struct core *core, const char *model, int64_t effective_ms,
               int64_t micro_usd_per_gpu_hour)
{
    struct price *price = mem_alloc(sizeof *price);
    void *prices = core->prices;
    mem_grow(&prices, &core->price_capacity, core->price_count + 1, sizeof *core->prices);
    core->prices = prices;
    core->prices[core->price_count++] = price;
    price->row.id = core->price_count;
    row_set_text(&price->row.model, model);
    price->row.effective_ms = effective_ms;
    price->row.micro_usd_per_gpu_hour = micro_usd_per_gpu_hour;
    core_mark(core, TABLE_PRICE, &price->row);
    if (effective_ms > core->now_ms) {
        timers_set(&core->timers, TIMER_PRICE, 0, effective_ms);
    }
}

void price_ensure_default(struct core *core)
{
    if (newest(core, "*", 0) == NULL) {
        price_add(core, "*", 0, 0);
    }
}
