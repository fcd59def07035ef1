/* The tables of schema.sql in SQLite. One connection does all writes and all WAL checkpoints;
 * readers are read-only connections (views.h). Blocking: a commit is one fsync of the WAL, ~0.3 ms.
 */
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include "daemon/core/core.h"
#include "daemon/core/pump.h"
#include "lib/err.h"

struct store;

/* Opens or makes state_dir/ds.db. Takes a lock that a second coordinator on the same folder fails
 * on (ERR_CONFLICT, one clear line); refuses a foreign file, a newer schema, and a damaged one as
 * far as that is seen at once: a large database is not read through here. Term is not touched. */
int store_open(struct store **store, const char *state_dir, struct err *err);
void store_close(struct store *store);
/* Whether opening it read it through. */
bool store_is_checked(const struct store *store);
/* Does that over a read-only connection of its own; ERR_CORRUPT. Blocking, some seconds for a
 * gigabyte: for another thread, while the store is in use. */
int store_check(const char *state_dir, struct err *err);

/* Prices of etc/prices.yaml: adds rows that are not there; never changes one. */
int store_set_price(struct store *store, const char *model, int64_t effective_ms,
                    int64_t micro_usd_per_gpu_hour, struct err *err);
/* Fills an empty core from the tables, adds 1 to the term and makes it durable. now_ms >= the last
 * stamp ever written. */
int store_load(struct store *store, struct core *core, int64_t wall_ms, struct err *err);
/* The same without touching the term: for the reload-equals-live check. */
int store_load_readonly(struct store *store, struct core *core, struct err *err);

extern const struct store_ops store_sqlite_ops;

/* Moves the WAL into the database when it has grown; call it when idle. */
int store_checkpoint_wal(struct store *store, struct err *err);

/* Prices from a file: prices.h. The audit of the ledger, over any read-only connection:
 * ledger_verify.h. */

#endif
