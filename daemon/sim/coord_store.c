/* The coordinator's storage: SQLite on a disk that fails, or tables in memory. */
#include <stdio.h>
#include <string.h>

#include "daemon/core/load.h"
#include "daemon/sim/sim.h"
#include "daemon/sim/store_mem.h"
#include "daemon/sim/vfs.h"
#include "lib/mem.h"

#define PRICE_CHANGE_MS (SIM_EPOCH_MS + 400000)

void disk_begin(struct sim *sim)
{
    if (sim->options.sqlite) {
        vfs_begin(&sim->rng);
    } else {
        sim->mem = store_mem_create();
    }
}

void disk_end(struct sim *sim)
{
    if (sim->options.sqlite) {
        vfs_end();
    }
    store_mem_destroy(sim->mem);
    sim->mem = NULL;
    audit_fini(&sim->audit);
}

/* Opens the tables and fills the core; fails when the disk does. */
int disk_open(struct sim *sim, struct core *core, int64_t wall_ms, struct err *err)
{
    if (!sim->options.sqlite) {
        store_mem_set_price(sim->mem, "*", 0, 1000000);
        store_mem_set_price(sim->mem, "X 1", PRICE_CHANGE_MS, 2000000);
        return store_mem_load(sim->mem, core, wall_ms, err);
    }
    TRY(store_open(&sim->store, sim->dir, err));
    TRY(store_set_price(sim->store, "*", 0, 1000000, err));
    TRY(store_set_price(sim->store, "X 1", PRICE_CHANGE_MS, 2000000, err));
    return store_load(sim->store, core, wall_ms, err);
}

void disk_close(struct sim *sim)
{
    store_close(sim->store);
    sim->store = NULL;
}

/* The process dies; when the machine does too, what was not synced is partly lost. */
void disk_crash(struct sim *sim)
{
    static const double kept[] = {0, 0.5, 0.9, 1};
    if (sim->options.sqlite) {
        uint64_t lost = vfs_sectors_lost();
        vfs_crash(kept[sim_roll(sim, 4)]);
        sim->counts.n[COUNT_POWER_LOST] += vfs_sectors_lost() > lost;
    }
}

int disk_commit(struct sim *sim, struct core *core, int64_t now_ms, struct err *err)
{
    if (!sim->options.sqlite) {
        /* On SQLite a commit that failed may yet be durable; there the tables are checked. */
        TRY(audit_commit(&sim->audit, core, err));
        return store_mem_commit(sim->mem, core, now_ms, err);
    }
    return store_sqlite_ops.commit(sim->store, core, now_ms, err);
}

int disk_reload(struct sim *sim, struct core *core, struct err *err)
{
    return sim->options.sqlite ? store_load_readonly(sim->store, core, err)
                               : store_mem_load_readonly(sim->mem, core, err);
}

/* A connection for the checks that are SQL; NULL on failure, then *err says why. */
sqlite3 *disk_database(struct sim *sim, struct err *err)
{
    sqlite3 *db = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/ds.db", sim->dir);
    bool is_file = sim->options.sqlite;
    int flags = is_file ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (sqlite3_open_v2(is_file ? path : ":memory:", &db, flags, NULL) != SQLITE_OK) {
        err_set(err, ERR_IO, "%s: %s", path, sqlite3_errmsg(db));
        sqlite3_close(db);
        return NULL;
    }
    if (is_file) {
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    } else if (store_mem_dump(sim->mem, db, err) != 0) {
        sqlite3_close(db);
        return NULL;
    }
    return db;
}

bool disk_keep(struct sim *sim, const char *path)
{
    struct err err = {0};
    if (sim->mem == NULL && sim->store == NULL) {
        return false;
    }
    sqlite3 *from = disk_database(sim, &err), *to = NULL;
    bool kept =
        from != NULL &&
        sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix") == SQLITE_OK;
    sqlite3_backup *backup = kept ? sqlite3_backup_init(to, "main", from, "main") : NULL;
    kept = backup != NULL && sqlite3_backup_step(backup, -1) == SQLITE_DONE;
    sqlite3_backup_finish(backup);
    sqlite3_close(to);
    sqlite3_close(from);
    return kept;
}
