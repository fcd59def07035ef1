/* Whether every page of the database makes sense. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/store.h"
#include "daemon/store_internal.h"
#include "lib/mem.h"

int store_check_database(sqlite3 *db, const char *path, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        rc = err_set(err, ERR_CORRUPT, "%s cannot be checked: %s (restore a backup)", path,
                     sqlite3_errmsg(db));
    } else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") != 0) {
        char what[256]; /* one line of it */
        snprintf(what, sizeof what, "%s", (const char *)sqlite3_column_text(stmt, 0));
        for (char *end = what; (end = strchr(end, '\n')) != NULL;) {
            *end = ' ';
        }
        rc = err_set(err, ERR_CORRUPT, "%s is damaged: %s (restore a backup)", path, what);
    }
    sqlite3_finalize(stmt);
    return rc;
}

int store_check(const char *state_dir, struct err *err)
{
    char *path = mem_printf("%s/ds.db", state_dir);
    sqlite3 *db = NULL;
    int rc;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK) {
        /* Only the writer may make checkpoints (store.c). */
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        rc = store_check_database(db, path, err);
    } else {
        rc = err_set(err, ERR_IO, "cannot open %s for reading: %s", path, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    free(path);
    return rc;
}
