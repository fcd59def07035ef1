/* Rows to and from SQLite, by the table descriptions of the core. */
#include <assert.h>
#include <string.h>

#include "daemon/store_internal.h"
#include "lib/buf.h"
#include "lib/mem.h"

static int bind(sqlite3_stmt *stmt, int at, const struct column *column, const char *field)
{
    int64_t value;
    switch (column->kind) {
    case COLUMN_TEXT: {
        const char *text = *(char *const *)field;
        return sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC); /* NULL binds NULL */
    }
    case COLUMN_REAL:
        return sqlite3_bind_double(stmt, at, *(const double *)field); /* NaN becomes NULL */
    case COLUMN_HASH:
        return sqlite3_bind_blob(stmt, at, field, ROW_HASH_BYTES, SQLITE_STATIC);
    case COLUMN_FLAG:
        return sqlite3_bind_int(stmt, at, *(const bool *)field);
    case COLUMN_ENUM: {
        int index;
        memcpy(&index, field, sizeof index);
        return sqlite3_bind_text(stmt, at, column->names[index], -1, SQLITE_STATIC);
    }
    case COLUMN_ID:
    case COLUMN_REF:
    case COLUMN_INT:
    case COLUMN_OPT:
    default:
        memcpy(&value, field, sizeof value);
        if ((column->kind == COLUMN_REF && value == 0) ||
            (column->kind == COLUMN_OPT && value == ROW_NONE)) {
            return sqlite3_bind_null(stmt, at);
        }
        return sqlite3_bind_int64(stmt, at, value);
    }
}

int row_bind(sqlite3_stmt *stmt, const struct table *table, const void *row)
{
    for (size_t i = 0; i < table->column_count; i++) {
        int rc = bind(stmt, (int)i + 1, &table->columns[i],
                      (const char *)row + table->columns[i].offset);
        if (rc != SQLITE_OK) {
            return rc;
        }
    }
    return SQLITE_OK;
}

static int read_column(sqlite3_stmt *stmt, int at, const struct column *column, char *field,
                       struct err *err)
{
    bool is_null = sqlite3_column_type(stmt, at) == SQLITE_NULL;
    int64_t value = sqlite3_column_int64(stmt, at);
    switch (column->kind) {
    case COLUMN_TEXT:
        *(char **)field = mem_strdup((const char *)sqlite3_column_text(stmt, at));
        return 0;
    case COLUMN_REAL:
        *(double *)field = is_null ? (double)NAN : sqlite3_column_double(stmt, at);
        return 0;
    case COLUMN_HASH:
        if (sqlite3_column_bytes(stmt, at) != ROW_HASH_BYTES) {
            return err_set(err, ERR_CORRUPT, "column %s has not %d bytes", column->name,
                           ROW_HASH_BYTES);
        }
        memcpy(field, sqlite3_column_blob(stmt, at), ROW_HASH_BYTES);
        return 0;
    case COLUMN_FLAG:
        *(bool *)field = value != 0;
        return 0;
    case COLUMN_ENUM: {
        const char *text = (const char *)sqlite3_column_text(stmt, at);
        int index = text != NULL ? row_enum_parse(column->names, text) : -1;
        if (index < 0) {
            return err_set(err, ERR_CORRUPT, "column %s holds an unknown name", column->name);
        }
        memcpy(field, &index, sizeof index);
        return 0;
    }
    case COLUMN_OPT:
        value = is_null ? ROW_NONE : value;
        break;
    case COLUMN_ID:
    case COLUMN_REF:
    case COLUMN_INT:
    default:
        break;
    }
    memcpy(field, &value, sizeof value);
    return 0;
}

int row_read(sqlite3_stmt *stmt, const struct table *table, void *row, struct err *err)
{
    memset(row, 0, table->row_bytes);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct column *column = &table->columns[i];
        if (read_column(stmt, (int)i, column, (char *)row + column->offset, err) != 0) {
            row_fini(table, row);
            return err_wrap(err, "database, table %s", table->name);
        }
    }
    return 0;
}

void row_column_list(struct buf *sql, const struct table *table, const char *prefix)
{
    for (size_t i = 0; i < table->column_count; i++) {
        buf_printf(sql, "%s%s%s", i > 0 ? "," : "", prefix, table->columns[i].name);
    }
}
