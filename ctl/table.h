/* A table of JSON objects, one a row: the same columns give the aligned text and the CSV. */
#ifndef CTL_TABLE_H
#define CTL_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "ctl/terminal.h"
#include "lib/buf.h"
#include "lib/err.h"

enum column_flag {
    COLUMN_RIGHT = 1,  /* aligned right: numbers */
    COLUMN_WIDE = 2,   /* only with -o wide (and in CSV) */
    COLUMN_STATE = 4,  /* coloured by its text */
    COLUMN_CSV = 8,    /* only in CSV */
    COLUMN_SPARE = 16, /* left out where the terminal is too narrow */
    COLUMN_LONG = 32,  /* cut where it is still too narrow; the last one always may be */
    COLUMN_WRAP = 64,  /* of the last one: goes on in the next line instead of being cut */
};

struct column {
    const char *title;
    /* Path of the raw value in the item, such as progress.step. With `compute`, only the name of
     * the column in CSV. */
    const char *key;
    unsigned flags;
    /* How people read it; NULL: the value as it is. Not called for null, which shows as "-". */
    void (*text)(struct buf *out, const json_t *item, const json_t *value);
    /* A raw value that the item does not have as such; a new reference. */
    json_t *(*compute)(const json_t *item);
};

struct table_view {
    const struct terminal *terminal;
    bool wide;
    bool no_header;
};

/* What a column has for an item: a new reference, or NULL for null. */
json_t *table_raw_value(const json_t *item, const struct column *column);

/* Sorts the array by a column's title or key, "-" in front for descending; nulls last, equal ones
 * stay in order. An unknown column is ERR_USAGE. */
int table_sort(json_t *items, const struct column *columns, size_t count, const char *by,
               struct err *err);

/* Aligned text. On a terminal, and not wide, rows are made to fit: spare columns are left out and
 * long ones cut. */
void table_text(struct buf *out, const json_t *items, const struct column *columns, size_t count,
                const struct table_view *view);
/* All columns, raw values. */
void table_csv(struct buf *out, const json_t *items, const struct column *columns, size_t count,
               bool no_header);

#endif
