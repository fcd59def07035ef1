#include "daemon/views.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

static int broken(struct views *v, const char *what, struct err *err)
{
    return err_set(err, ERR_IO, "cannot %s the database: %s", what,
                   v->db != NULL ? sqlite3_errmsg(v->db) : "out of memory");
}

int views_open(struct views **views, const char *state_dir, const struct views_live *live,
               struct err *err)
{
    struct views *v = mem_alloc(sizeof *v);
    char *path = mem_printf("%s/ds.db", state_dir);
    int rc = sqlite3_open_v2(path, &v->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        rc = err_set(err, ERR_IO, "cannot open %s for reading: %s", path,
                     v->db != NULL ? sqlite3_errmsg(v->db) : "out of memory");
        views_close(v);
        free(path);
        return rc;
    }
    free(path);
    /* Checkpoints are the writer's alone (a second connection that makes one can corrupt this
     * version's WAL). */
    sqlite3_db_config(v->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(v->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_busy_timeout(v->db, 5000);
    if (live != NULL) {
        v->live = *live;
    }
    *views = v;
    return 0;
}

void views_close(struct views *v)
{
    if (v == NULL) {
        return;
    }
    for (size_t i = 0; i < v->statement_count; i++) {
        sqlite3_finalize(v->statements[i].stmt);
    }
    sqlite3_close(v->db);
    usage_fini(&v->usage);
    free(v);
}

/* ------------------------------------------------------------------ statements */

int views_query(struct views *v, const char *sql, sqlite3_stmt **stmt, struct err *err)
{
    for (size_t i = 0; i < v->statement_count; i++) {
        if (v->statements[i].sql == sql) {
            *stmt = v->statements[i].stmt;
            sqlite3_reset(*stmt);
            sqlite3_clear_bindings(*stmt);
            return 0;
        }
    }
    assert(v->statement_count < sizeof v->statements / sizeof v->statements[0]);
    if (sqlite3_prepare_v3(v->db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL) != SQLITE_OK) {
        return broken(v, "query", err);
    }
    v->statements[v->statement_count].sql = sql;
    v->statements[v->statement_count++].stmt = *stmt;
    return 0;
}

int views_step(struct views *v, sqlite3_stmt *stmt, bool *row, struct err *err)
{
    int rc = sqlite3_step(stmt);
    *row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW) {
        return 0;
    }
    int code = rc == SQLITE_DONE ? 0 : broken(v, "read", err);
    sqlite3_reset(stmt);
    return code;
}

int views_begin(struct views *v, struct err *err)
{
    return sqlite3_exec(v->db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK ? 0 : broken(v, "read", err);
}

void views_end(struct views *v)
{
    /* Statements left in the middle after an error would keep the snapshot. */
    for (size_t i = 0; i < v->statement_count; i++) {
        sqlite3_reset(v->statements[i].stmt);
    }
    sqlite3_exec(v->db, "COMMIT", NULL, NULL, NULL);
}

char *views_text(sqlite3_stmt *stmt, int column)
{
    return mem_strdup((const char *)sqlite3_column_text(stmt, column));
}

bool views_has(sqlite3_stmt *stmt, int column)
{
    return sqlite3_column_type(stmt, column) != SQLITE_NULL;
}

uint64_t views_u64(sqlite3_stmt *stmt, int column)
{
    return (uint64_t)sqlite3_column_int64(stmt, column);
}

int64_t views_i64(sqlite3_stmt *stmt, int column)
{
    return sqlite3_column_int64(stmt, column);
}

double views_double(sqlite3_stmt *stmt, int column)
{
    return sqlite3_column_double(stmt, column);
}

void views_push(void *items, size_t *count, void *item)
{
    void ***array = items;
    /* protobuf-c keeps no capacity: it is the next power of two. */
    if ((*count & (*count - 1)) == 0) {
        *array = mem_resize(*array, (*count > 0 ? *count * 2 : 1) * sizeof **array);
    }
    (*array)[(*count)++] = item;
}

void views_reverse(void *items, size_t count)
{
    void **array = items;
    for (size_t i = 0; i < count / 2; i++) {
        void *item = array[i];
        array[i] = array[count - 1 - i];
        array[count - 1 - i] = item;
    }
}
