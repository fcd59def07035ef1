/* Filling an empty core from the tables: only what is alive is read. */
#include <stdlib.h>
#include <string.h>

#include "daemon/core/ledger.h"
#include "daemon/core/load.h"
#include "daemon/store.h"
#include "daemon/store_internal.h"
#include "lib/buf.h"
#include "lib/mem.h"

#define LIVE_JOB       "state NOT IN ('COMPLETED','FAILED','CANCELLED')"
#define NEWEST_ATTEMPT "(job_id,epoch) IN (SELECT id,epoch FROM job WHERE " LIVE_JOB ")"

/* Which rows of each table are in memory; NULL: none. */
static const char *const filters[TABLE_COUNT] = {
    [TABLE_PRICE] = "1",
    [TABLE_NODE] = "1",
    [TABLE_JOB] = LIVE_JOB,
    [TABLE_GPU] = "1",
    [TABLE_ATTEMPT] = NEWEST_ATTEMPT,
    [TABLE_ATTEMPT_NODE] = NEWEST_ATTEMPT,
    [TABLE_ALLOCATION] = NEWEST_ATTEMPT,
    [TABLE_RANK_EXIT] = NEWEST_ATTEMPT,
    [TABLE_CHECKPOINT] = "state<>'DELETED' OR removing OR " NEWEST_ATTEMPT,
    [TABLE_CKPT_SHARD] =
        "ckpt_id IN (SELECT id FROM checkpoint WHERE state IN ('WRITING','COMMITTED'))",
    [TABLE_QUEUE] = "1",
    [TABLE_ACCOUNT] = "1",
    [TABLE_QUOTA] = "1",
    [TABLE_FAIR_USAGE] = "1",
    [TABLE_RESERVATION] = "1",
};

static int load_rows(struct store *store, struct core *core, enum table_id id, sqlite3_stmt *stmt,
                     struct err *err)
{
    void *row = mem_alloc(tables[id].row_bytes);
    int rc = 0, step;
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        rc = row_read(stmt, &tables[id], row, err);
        if (rc == 0) {
            rc = core_load_row(core, id, row, err);
        }
    }
    free(row);
    return rc != 0 || step == SQLITE_DONE ? rc : store_error(store, err, tables[id].name);
}

static int load_table(struct store *store, struct core *core, enum table_id id, struct err *err)
{
    const struct table *table = &tables[id];
    struct buf sql = {0};
    buf_append_str(&sql, "SELECT ");
    row_column_list(&sql, table, "");
    buf_printf(&sql, " FROM %s WHERE %s ORDER BY ", table->name, filters[id]);
    for (size_t i = 0; i < table->key_count; i++) {
        buf_printf(&sql, "%s%s", i > 0 ? "," : "", table->columns[i].name);
    }
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(store, &stmt, buf_cstr(&sql), err);
    buf_fini(&sql);
    if (rc == 0) {
        rc = load_rows(store, core, id, stmt, err);
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int load_keys(struct store *store, struct core *core, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_prepare(
        store, &stmt,
        "SELECT submit_key, request_hash, id FROM job WHERE submit_key IS NOT NULL ORDER BY id",
        err));
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        core_load_key(core, (const char *)sqlite3_column_text(stmt, 0),
                      (const char *)sqlite3_column_text(stmt, 1),
                      (uint64_t)sqlite3_column_int64(stmt, 2));
    }
    sqlite3_finalize(stmt);
    return step == SQLITE_DONE ? 0 : store_error(store, err, "reading the submit keys");
}

/* What jobs that depend on ended ones ask. The index has all of it: the rows are not read. */
static int load_outcomes(struct store *store, struct core *core, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_prepare(store, &stmt,
                      "SELECT id, state, CASE WHEN array_id = id THEN array_size ELSE 0 END FROM "
                      "job INDEXED BY job_ended WHERE state IN ('COMPLETED','FAILED','CANCELLED')",
                      err));
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        int state = row_enum_parse(job_state_names, (const char *)sqlite3_column_text(stmt, 1));
        core_load_outcome(core, (uint64_t)sqlite3_column_int64(stmt, 0), (enum job_state)state,
                          (uint32_t)sqlite3_column_int64(stmt, 2));
    }
    sqlite3_finalize(stmt);
    return step == SQLITE_DONE ? 0 : store_error(store, err, "reading how jobs ended");
}

/* Reads the last two rows: the newest hash must follow from them. */
static int load_ledger_tail(struct store *store, struct core_counters *counters, struct err *err)
{
    const struct table *table = &tables[TABLE_LEDGER];
    struct buf sql = {0};
    buf_append_str(&sql, "SELECT ");
    row_column_list(&sql, table, "");
    buf_append_str(&sql, " FROM ledger ORDER BY seq DESC LIMIT 2");
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(store, &stmt, buf_cstr(&sql), err);
    buf_fini(&sql);
    struct ledger_row rows[2] = {0};
    int count = 0;
    while (rc == 0 && sqlite3_step(stmt) == SQLITE_ROW) {
        rc = row_read(stmt, table, &rows[count++], err);
    }
    sqlite3_finalize(stmt);
    if (rc != 0 || count == 0) {
        return rc;
    }
    uint8_t expected[ROW_HASH_BYTES];
    ledger_row_hash(&rows[0], rows[1].hash, expected);
    if (memcmp(expected, rows[0].hash, sizeof expected) != 0) {
        return err_set(
            err, ERR_CORRUPT,
            "%s: the ledger's newest row does not follow from the one before: it was altered "
            "(restore a backup)",
            store->path);
    }
    counters->ledger_seq = rows[0].seq;
    memcpy(counters->ledger_head, rows[0].hash, sizeof counters->ledger_head);
    return 0;
}

static int read_max(struct store *store, const char *sql, uint64_t *value, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_prepare(store, &stmt, sql, err));
    int rc = sqlite3_step(stmt) == SQLITE_ROW ? 0 : store_error(store, err, sql);
    if (rc == 0) {
        *value = (uint64_t)sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int load(struct store *store, struct core *core, struct core_counters *counters,
                struct err *err)
{
    int64_t term = 0;
    TRY(store_get_meta(store, "clock_ms", &counters->now_ms, err));
    TRY(store_get_meta(store, "term", &term, err));
    counters->term = (uint64_t)term;
    TRY(read_max(store, "SELECT coalesce(max(id),0)+1 FROM job", &counters->next_job, err));
    TRY(read_max(store, "SELECT coalesce(max(id),0)+1 FROM checkpoint", &counters->next_ckpt, err));
    TRY(read_max(store, "SELECT coalesce(max(seq),0) FROM event", &counters->event_seq, err));
    TRY(load_ledger_tail(store, counters, err));
    for (int t = 0; t < TABLE_COUNT; t++) {
        if (filters[t] != NULL) {
            TRY(load_table(store, core, (enum table_id)t, err));
        }
    }
    TRY(load_outcomes(store, core, err));
    return load_keys(store, core, err);
}

int store_load_readonly(struct store *store, struct core *core, struct err *err)
{
    struct core_counters counters = {0};
    TRY(load(store, core, &counters, err));
    core_load_counters(core, &counters);
    core_load_done(core);
    return 0;
}

int store_load(struct store *store, struct core *core, int64_t wall_ms, struct err *err)
{
    struct core_counters counters = {0};
    TRY(load(store, core, &counters, err));
    counters.term++;
    if (counters.now_ms < wall_ms) {
        counters.now_ms = wall_ms;
    }
    core_load_counters(core, &counters);
    core_load_done(core);
    TRY(store_exec(store, "BEGIN IMMEDIATE", err));
    TRY(store_set_meta(store, "term", (int64_t)counters.term, err));
    TRY(store_exec(store, "COMMIT", err));
    TRY(store_sqlite_ops.commit(store, core, counters.now_ms, err));
    core_committed(core);
    return 0;
}
