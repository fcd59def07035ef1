/* The core's side of persistence: the store takes changed rows out, and puts rows in at start. */
#ifndef DAEMON_CORE_LOAD_H
#define DAEMON_CORE_LOAD_H

#include "daemon/core/core.h"
#include "daemon/core/rows.h"
#include "lib/err.h"

struct change_list;

bool core_has_changes(const struct core *core);
/* Rows of one table to be written. */
const struct change_list *core_changes(const struct core *core, enum table_id table);
size_t change_count(const struct change_list *list);
void *change_row(const struct change_list *list, size_t i);
/* They are written: forgets them, and frees what only waited for that. */
void core_committed(struct core *core);

/* What a table does not say. */
struct core_counters {
    uint64_t term;
    int64_t now_ms;
    uint64_t next_job, next_ckpt;
    uint64_t event_seq, ledger_seq;
    uint8_t ledger_head[ROW_HASH_BYTES];
};
void core_load_counters(struct core *core, const struct core_counters *counters);
/* Takes over a row (texts too; the row struct itself stays the caller's). Tables in the order of
 * enum table_id, rows by key: all prices, nodes and gpus; jobs that have not ended; of each its
 * newest attempt with nodes, allocations and exits; checkpoints that are on disk or of such an
 * attempt; shards of those WRITING or COMMITTED; all of the tables after those. ERR_CORRUPT when a
 * row refers to one that is not there. */
int core_load_row(struct core *core, enum table_id table, void *row, struct err *err);
void core_load_key(struct core *core, const char *key, const char *request_hash, uint64_t job);
/* How a job that has ended did so; array_size: of the array it was first of, or 0. */
void core_load_outcome(struct core *core, uint64_t job, enum job_state state, uint32_t array_size);
/* Everything is there: queue, meters, timers, leases. Also to be called on a core that starts
 * empty. */
void core_load_done(struct core *core);

#endif
