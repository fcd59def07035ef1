/* Where every accelerator-millisecond went. Each accelerator has one open interval, the meter, in
 * its gpu row; closing it appends rows to the ledger, so that the intervals of an accelerator tile
 * the time since it was first seen, with no gap and no overlap.
 *
 * Categories. Not allocated: `idle`, `down` (its node is silent, fenced or gone, or it is broken),
 * `planned_down` (drained). Allocated to an attempt: `init` until the first step of a job's first
 * attempt; `recovery` until the first step of a later one, and from the first sign of a failure
 * until release; `productive` between. A command has no steps: it is productive once all its ranks
 * run. When a productive interval is closed it is split: the part since the newest checkpoint of
 * the attempt is `lost_progress`, unless the job completed or somebody cancelled it (a command has
 * no checkpoint, so a failed one has lost everything); out of the rest, the reported waits are
 * carved as `data_wait` and `checkpoint_stall`. Intervals of length zero are not written.
 *
 * Costs: round half up of ms * price / 3,600,000, in micro-dollars; a row lies within one price.
 * Chain: hash = SHA-256(0x01 || hash of the row before || SHA-256(0x00 || canonical text)), the
 * first follows 32 zero bytes. Canonical text, decimal, nothing where a value is absent:
 * seq|gpu_id|category|job_id|epoch|start_ms|end_ms|price_id|cost_micro_usd */
#ifndef DAEMON_CORE_LEDGER_H
#define DAEMON_CORE_LEDGER_H

#include "daemon/core/state.h"

int64_t ledger_cost(int64_t ms, int64_t micro_usd_per_gpu_hour);
/* Reads every column of row but `hash`. */
void ledger_row_hash(const struct ledger_row *row, const uint8_t previous[ROW_HASH_BYTES],
                     uint8_t hash[ROW_HASH_BYTES]);

/* Opens the meter of a new accelerator. */
void meter_open(struct core *core, struct gpu *gpu, enum category category);
/* The accelerator at this place is of another model from now on. */
void meter_set_model(struct core *core, struct gpu *gpu, const char *model);
/* From now on, `category`, for this job and epoch (0, 0 when not allocated). Of a productive
 * interval that this closes, what came after kept_ms is lost. Nothing happens when all stay the
 * same. */
void meter_switch(struct core *core, struct gpu *gpu, enum category category, uint64_t job,
                  uint64_t epoch, int64_t kept_ms);
/* Closes and reopens what has another price since. */
void meter_reprice(struct core *core);
/* The waits reported with steps, of the open productive interval of an attempt. */
void meter_add_waits(struct core *core, struct attempt *attempt, int64_t stall_ms, int64_t wait_ms);
/* A checkpoint was committed: the waits so far are in the part that is kept. */
void meter_keep_waits(struct core *core, struct attempt *attempt);

#endif
