/* Opening, writing and closing. The database belongs to one process: a lock file beside it is held
 * for as long as it is open. One connection does all writes and all WAL checkpoints: SQLite
 * before 3.51.3 can corrupt a WAL database when one connection checkpoints while another commits.
 */
#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/core/load.h"
#include "daemon/store_internal.h"
#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"

#include "daemon/schema.sql.h"
#include "daemon/schema_2.sql.h"
#include "daemon/schema_3.sql.h"
#include "daemon/schema_4.sql.h"

#define APPLICATION_ID  0x44534331 /* DSC1 */
#define SCHEMA_VERSION  4
#define WAL_PAGES_SMALL 2000 /* 8 MB: not worth a checkpoint yet */
#define BUSY_TIMEOUT_MS 5000
#define CHECKED_AT_ONCE (64 << 20) /* bytes: in some tenths of a second */

int store_error(struct store *store, struct err *err, const char *text)
{
    int extended = sqlite3_extended_errcode(store->db);
    int code = ERR_IO;
    const char *hint = "";
    switch (extended & 0xff) {
    case SQLITE_FULL:
        code = ERR_NOSPACE;
        hint = " (free some space on that file system)";
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = ERR_CORRUPT;
        hint = " (restore a backup)";
        break;
    case SQLITE_CONSTRAINT:
        code = ERR_CORRUPT;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        code = ERR_CONFLICT;
        hint = " (another program has the database open for writing)";
        break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        code = ERR_DENIED;
        break;
    default:
        break;
    }
    return err_set(err, code, "%s: %s: %s, code %d%s", store->path, text, sqlite3_errmsg(store->db),
                   extended, hint);
}

int store_exec(struct store *store, const char *sql, struct err *err)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? 0
               : store_error(store, err, sql);
}

int store_prepare(struct store *store, sqlite3_stmt **stmt, const char *sql, struct err *err)
{
    int rc = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL);
    return rc == SQLITE_OK ? 0 : store_error(store, err, sql);
}

static int read_int(struct store *store, const char *sql, int64_t *value, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_prepare(store, &stmt, sql, err));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        *value = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : store_error(store, err, sql);
}

int store_get_meta(struct store *store, const char *key, int64_t *value, struct err *err)
{
    char *sql = sqlite3_mprintf("SELECT value FROM meta WHERE key = %Q", key);
    int rc = read_int(store, sql, value, err);
    sqlite3_free(sql);
    return rc;
}

int store_set_meta(struct store *store, const char *key, int64_t value, struct err *err)
{
    sqlite3_bind_text(store->set_meta, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_int64(store->set_meta, 2, value);
    int rc = sqlite3_step(store->set_meta);
    sqlite3_reset(store->set_meta);
    return rc == SQLITE_DONE ? 0 : store_error(store, err, "writing meta");
}

/* ---------------------------------------------------------------- open */

static int take_lock(struct store *store, const char *state_dir, struct err *err)
{
    char *path = mem_printf("%s/dsd.lock", state_dir);
    int rc = 0;
    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0) {
        rc = err_set_errno(err, "open %s", path);
    } else if (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[24] = "";
        ssize_t got = pread(store->lock_fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? strcspn(pid, "\n") : 0] = 0;
        rc = err_set(
            err, ERR_CONFLICT,
            "%s is in use by another dsd%s%s: stop that one, or give this one another --state-dir",
            state_dir, pid[0] != 0 ? ", pid " : "", pid);
    } else {
        char pid[24];
        int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (ftruncate(store->lock_fd, 0) != 0 ||
            pwrite(store->lock_fd, pid, (size_t)len, 0) != len) {
            rc = err_set_errno(err, "write %s", path);
        }
    }
    free(path);
    return rc;
}

static int configure(struct store *store, struct err *err)
{
    static const struct {
        int op, value;
    } options[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},
        {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_DQS_DML, 0},
        {SQLITE_DBCONFIG_DQS_DDL, 0},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        sqlite3_db_config(store->db, options[i].op, options[i].value, NULL);
    }
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    return store_exec(
        store,
#ifdef MUTANT_no_fsync
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;"
#else
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;"
#endif
        "PRAGMA foreign_keys=ON; PRAGMA recursive_triggers=ON; PRAGMA cell_size_check=ON;"
        "PRAGMA mmap_size=0; PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY;",
        err);
}

static int create_schema(struct store *store, struct err *err)
{
    struct buf sql = {0};
    buf_printf(&sql,
               "BEGIN EXCLUSIVE; PRAGMA application_id=%d; %s PRAGMA user_version=%d; COMMIT;",
               APPLICATION_ID, schema_sql, SCHEMA_VERSION);
    int rc = sqlite3_exec(store->db, buf_cstr(&sql), NULL, NULL, NULL) == SQLITE_OK
                 ? 0
                 : store_error(store, err, "making the tables");
    buf_fini(&sql);
    return rc;
}

/* One transaction a version: a crash in between leaves the version before. */
static int upgrade(struct store *store, int64_t version, struct err *err)
{
    static const char *const steps[] = {[2] = schema_2_sql, [3] = schema_3_sql, [4] = schema_4_sql};
    for (int next = (int)version + 1; next <= SCHEMA_VERSION; next++) {
        struct buf sql = {0};
        buf_printf(&sql, "BEGIN EXCLUSIVE; %s PRAGMA user_version=%d; COMMIT;", steps[next], next);
        int rc = sqlite3_exec(store->db, buf_cstr(&sql), NULL, NULL, NULL) == SQLITE_OK
                     ? 0
                     : store_error(store, err, "bringing the tables up to date");
        buf_fini(&sql);
        if (rc != 0) {
            sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
            return rc;
        }
    }
    return 0;
}

/* Ours, of a version we know, and undamaged; or empty, then the tables are made. */
static int check_or_create(struct store *store, struct err *err)
{
    int64_t application = 0, version = 0, objects = 0;
    TRY(read_int(store, "SELECT count(*) FROM sqlite_schema", &objects, err));
    TRY(read_int(store, "PRAGMA application_id", &application, err));
    TRY(read_int(store, "PRAGMA user_version", &version, err));
    if (objects == 0 && application == 0 && version == 0) {
        store->checked = true;
        TRY(configure(store, err));
        return create_schema(store, err);
    }
    if (application != APPLICATION_ID) {
        return err_set(err, ERR_CONFIG, "%s is not a database of dsd (give another --state-dir)",
                       store->path);
    }
    if (version > SCHEMA_VERSION) {
        return err_set(
            err, ERR_CONFIG,
            "%s was written by a newer dsd: its schema is version %lld, this dsd knows %d "
            "(install the newer dsd)",
            store->path, (long long)version, SCHEMA_VERSION);
    }
    if (version < 1) {
        return err_set(err, ERR_CORRUPT, "%s has no schema version (restore a backup)",
                       store->path);
    }
    TRY(configure(store, err));
    struct stat st;
    store->checked = stat(store->path, &st) == 0 && st.st_size <= CHECKED_AT_ONCE;
    if (store->checked) {
        TRY(store_check_database(store->db, store->path, err));
    }
    return upgrade(store, version, err);
}

static int prepare_write(struct store *store, enum table_id id, struct err *err)
{
    const struct table *table = &tables[id];
    struct buf sql = {0};
    buf_printf(&sql, "INSERT INTO %s(", table->name);
    row_column_list(&sql, table, "");
    buf_append_str(&sql, ") VALUES(");
    for (size_t i = 0; i < table->column_count; i++) {
        buf_printf(&sql, "%s?%zu", i > 0 ? "," : "", i + 1);
    }
    buf_append_str(&sql, ")");
    if (table->use != ROW_APPENDED) {
        buf_append_str(&sql, " ON CONFLICT(");
        for (size_t i = 0; i < table->key_count; i++) {
            buf_printf(&sql, "%s%s", i > 0 ? "," : "", table->columns[i].name);
        }
        buf_append_str(&sql, ") DO UPDATE SET ");
        for (size_t i = table->key_count; i < table->column_count; i++) {
            const char *name = table->columns[i].name;
            buf_printf(&sql, "%s%s=excluded.%s", i > table->key_count ? "," : "", name, name);
        }
    }
    int rc = store_prepare(store, &store->write[id], buf_cstr(&sql), err);
    buf_fini(&sql);
    return rc;
}

static int remember_wal_size(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct store *)context)->wal_pages = pages;
    return SQLITE_OK;
}

static int open_database(struct store *store, struct err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(store->path, &store->db, flags, NULL) != SQLITE_OK) {
        return store_error(store, err, "open");
    }
    sqlite3_extended_result_codes(store->db, 1);
    TRY(check_or_create(store, err));
    TRY(store_prepare(store, &store->begin, "BEGIN IMMEDIATE", err));
    TRY(store_prepare(store, &store->commit, "COMMIT", err));
    TRY(store_prepare(store, &store->rollback, "ROLLBACK", err));
    TRY(store_prepare(store, &store->set_meta,
                      "INSERT INTO meta(key,value) VALUES(?1,?2) ON CONFLICT(key) DO UPDATE SET "
                      "value=excluded.value",
                      err));
    for (int i = 0; i < TABLE_COUNT; i++) {
        TRY(prepare_write(store, (enum table_id)i, err));
    }
    sqlite3_wal_hook(store->db, remember_wal_size, store);
    return 0;
}

int store_open(struct store **out, const char *state_dir, struct err *err)
{
    struct store *store = mem_alloc(sizeof *store);
    store->lock_fd = -1;
    store->path = mem_printf("%s/ds.db", state_dir);
    int rc;
    TRY_GOTO(file_mkdirs(state_dir, 0700, err), failed);
    TRY_GOTO(take_lock(store, state_dir, err), failed);
    TRY_GOTO(open_database(store, err), failed);
    *out = store;
    return 0;
failed:
    store_close(store);
    return rc;
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    for (int i = 0; i < TABLE_COUNT; i++) {
        sqlite3_finalize(store->write[i]);
    }
    sqlite3_finalize(store->begin);
    sqlite3_finalize(store->commit);
    sqlite3_finalize(store->rollback);
    sqlite3_finalize(store->set_meta);
    sqlite3_close(store->db);
    if (store->lock_fd >= 0) {
        close(store->lock_fd);
    }
    free(store->path);
    free(store);
}

bool store_is_checked(const struct store *store)
{
    return store->checked;
}

/* ---------------------------------------------------------------- write */

static int step(struct store *store, sqlite3_stmt *stmt, const char *what, struct err *err)
{
    int rc = sqlite3_step(stmt);
    int result = rc == SQLITE_DONE ? 0 : store_error(store, err, what);
    sqlite3_reset(stmt);
    return result;
}

static int write_row(struct store *store, enum table_id id, const void *row, struct err *err)
{
    if (row_bind(store->write[id], &tables[id], row) != SQLITE_OK) {
        return store_error(store, err, tables[id].name);
    }
    return step(store, store->write[id], tables[id].name, err);
}

/* An accelerator may be released and allocated again in one batch; the index on live allocations
 * wants the release first. */
static int write_allocations(struct store *store, const struct change_list *list, struct err *err)
{
    for (int live = 0; live <= 1; live++) {
        for (size_t i = 0; i < change_count(list); i++) {
            const struct allocation_row *row = change_row(list, i);
            if ((row->released_ms == ROW_NONE) == (live == 1)) {
                TRY(write_row(store, TABLE_ALLOCATION, row, err));
            }
        }
    }
    return 0;
}

static int write_changes(struct store *store, struct core *core, int64_t now_ms, struct err *err)
{
    for (int t = 0; t < TABLE_COUNT; t++) {
        const struct change_list *list = core_changes(core, (enum table_id)t);
        if (t == TABLE_ALLOCATION) {
            TRY(write_allocations(store, list, err));
            continue;
        }
        for (size_t i = 0; i < change_count(list); i++) {
            TRY(write_row(store, (enum table_id)t, change_row(list, i), err));
        }
    }
    return store_set_meta(store, "clock_ms", now_ms, err);
}

static int commit(void *context, struct core *core, int64_t now_ms, struct err *err)
{
    struct store *store = context;
    TRY(step(store, store->begin, "begin", err));
    int rc = write_changes(store, core, now_ms, err);
    if (rc == 0) {
        rc = step(store, store->commit, "commit", err);
    }
    if (rc != 0 && !sqlite3_get_autocommit(store->db)) {
        step(store, store->rollback, "rollback", NULL);
    }
    return rc;
}
const struct store_ops store_sqlite_ops = {.commit = commit};

int store_set_price(struct store *store, const char *model, int64_t effective_ms,
                    int64_t micro_usd_per_gpu_hour, struct err *err)
{
    char *sql = sqlite3_mprintf("SELECT micro_usd_per_gpu_hour FROM price WHERE model = %Q AND "
                                "effective_ms = %lld",
                                model, (long long)effective_ms);
    int64_t known = -1;
    int rc = read_int(store, sql, &known, err);
    sqlite3_free(sql);
    TRY(rc);
    if (known == micro_usd_per_gpu_hour) {
        return 0;
    }
    if (known >= 0) {
        return err_set(
            err, ERR_CONFLICT,
            "the price of %s from that date on is recorded as %lld micro-dollars an hour, not "
            "%lld: recorded prices do not change (add one with a later effective date)",
            model, (long long)known, (long long)micro_usd_per_gpu_hour);
    }
    sql = sqlite3_mprintf(
        "INSERT INTO price(id,model,effective_ms,micro_usd_per_gpu_hour) VALUES((SELECT "
        "coalesce(max(id),0)+1 FROM price),%Q,%lld,%lld)",
        model, (long long)effective_ms, (long long)micro_usd_per_gpu_hour);
    rc = store_exec(store, sql, err);
    sqlite3_free(sql);
    return rc;
}

int store_checkpoint_wal(struct store *store, struct err *err)
{
    if (store->wal_pages < WAL_PAGES_SMALL) {
        return 0;
    }
    store->wal_pages = 0;
    int rc = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    return rc == SQLITE_OK || rc == SQLITE_BUSY ? 0 : store_error(store, err, "WAL checkpoint");
}
