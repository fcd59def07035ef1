/* The tables in memory, for speed: what is committed stays, what is not is as if it never was. It
 * loads what the SQLite store loads. */
#ifndef DAEMON_SIM_STORE_MEM_H
#define DAEMON_SIM_STORE_MEM_H

#include <sqlite3.h>

#include "daemon/core/core.h"
#include "daemon/core/pump.h"
#include "lib/err.h"

struct store_mem;

struct store_mem *store_mem_create(void);
void store_mem_destroy(struct store_mem *store);
void store_mem_set_price(struct store_mem *store, const char *model, int64_t effective_ms,
                         int64_t micro_usd_per_gpu_hour);
/* As store_load and store_load_readonly. */
int store_mem_load(struct store_mem *store, struct core *core, int64_t wall_ms, struct err *err);
int store_mem_load_readonly(struct store_mem *store, struct core *core, struct err *err);
int store_mem_commit(struct store_mem *store, struct core *core, int64_t now_ms, struct err *err);
/* Makes the tables in an empty database and fills them: for the checks that are SQL. */
int store_mem_dump(struct store_mem *store, sqlite3 *db, struct err *err);

#endif
