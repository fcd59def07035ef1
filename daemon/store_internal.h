/* Shared by the store's files only. */
#ifndef DAEMON_STORE_INTERNAL_H
#define DAEMON_STORE_INTERNAL_H

#include <sqlite3.h>

#include "daemon/core/rows.h"
#include "lib/err.h"

struct store {
    sqlite3 *db;
    int lock_fd;
    char *path;                       /* owned; of the database */
    sqlite3_stmt *write[TABLE_COUNT]; /* insert, or insert-or-update, of a whole row */
    sqlite3_stmt *begin, *commit, *rollback, *set_meta;
    int wal_pages;
    bool checked; /* when it was opened, or made then */
};

/* ERR_CORRUPT with the first thing that is wrong. Reads all of it. */
int store_check_database(sqlite3 *db, const char *path, struct err *err);
/* Translates what SQLite said; text: what was being done. */
int store_error(struct store *store, struct err *err, const char *text);
int store_exec(struct store *store, const char *sql, struct err *err);
int store_prepare(struct store *store, sqlite3_stmt **stmt, const char *sql, struct err *err);
int store_set_meta(struct store *store, const char *key, int64_t value, struct err *err);
/* value stays as it is when the key is not there. */
int store_get_meta(struct store *store, const char *key, int64_t *value, struct err *err);

/* Column i + 1 of the statement from the row's field, and the field from column i. */
int row_bind(sqlite3_stmt *stmt, const struct table *table, const void *row);
int row_read(sqlite3_stmt *stmt, const struct table *table, void *row, struct err *err);
/* "a,b,c" with a prefix to each. */
struct buf;
void row_column_list(struct buf *sql, const struct table *table, const char *prefix);

#endif
