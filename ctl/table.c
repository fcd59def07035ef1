#include "ctl/table.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ctl/encode.h"
#include "lib/mem.h"
#include "proto/pick.h"

json_t *table_raw_value(const json_t *item, const struct column *column)
{
    if (column->compute != NULL) {
        json_t *value = column->compute(item);
        if (json_is_null(value)) {
            json_decref(value);
            return NULL;
        }
        return value;
    }
    const json_t *value = pick(item, column->key);
    return json_incref((json_t *)(uintptr_t)value);
}

/* ---- sorting */

struct sort_key {
    json_t *value; /* owned or NULL */
    json_t *item;  /* owned */
    size_t position;
};

static int compare_values(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b)) {
        json_int_t x = json_integer_value(a);
        json_int_t y = json_integer_value(b);
        return (x > y) - (x < y);
    }
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a);
        double y = json_number_value(b);
        return (x > y) - (x < y);
    }
    if (json_is_string(a) && json_is_string(b)) {
        return strcmp(json_string_value(a), json_string_value(b));
    }
    return (int)json_typeof(a) - (int)json_typeof(b);
}

static int compare_keys(const void *left, const void *right, void *descending)
{
    const struct sort_key *a = left;
    const struct sort_key *b = right;
    int order = 0;
    if (a->value == NULL || b->value == NULL) {
        order = (a->value == NULL) - (b->value == NULL);
    } else {
        order = compare_values(a->value, b->value);
        order = *(const bool *)descending ? -order : order;
    }
    return order != 0 ? order : (a->position > b->position) - (a->position < b->position);
}

static const struct column *find_column(const struct column *columns, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(columns[i].title, name) == 0 || strcmp(columns[i].key, name) == 0) {
            return &columns[i];
        }
    }
    return NULL;
}

static int unknown_column(const struct column *columns, size_t count, const char *name,
                          struct err *err)
{
    struct buf names = {0};
    for (size_t i = 0; i < count; i++) {
        buf_printf(&names, "%s%s", i > 0 ? ", " : "", columns[i].title);
    }
    int rc = err_set(err, ERR_USAGE, "cannot sort by '%s': no such column (columns are %s)", name,
                     buf_cstr(&names));
    buf_fini(&names);
    return rc;
}

int table_sort(json_t *items, const struct column *columns, size_t count, const char *by,
               struct err *err)
{
    bool descending = by[0] == '-';
    const char *name = by + descending;
    const struct column *column = find_column(columns, count, name);
    if (column == NULL) {
        return unknown_column(columns, count, name, err);
    }
    size_t rows = json_array_size(items);
    struct sort_key *keys = mem_alloc_array(rows, sizeof *keys);
    for (size_t i = 0; i < rows; i++) {
        keys[i].item = json_incref(json_array_get(items, i));
        keys[i].value = table_raw_value(keys[i].item, column);
        keys[i].position = i;
    }
    qsort_r(keys, rows, sizeof *keys, compare_keys, &descending);
    json_array_clear(items);
    for (size_t i = 0; i < rows; i++) {
        json_array_append_new(items, keys[i].item);
        json_decref(keys[i].value);
    }
    free(keys);
    return 0;
}

/* ---- CSV */

void table_csv(struct buf *out, const json_t *items, const struct column *columns, size_t count,
               bool no_header)
{
    for (size_t c = 0; c < count && !no_header; c++) {
        buf_printf(out, "%s%s", c > 0 ? "," : "", columns[c].key);
    }
    buf_append_str(out, no_header ? "" : "\n");
    for (size_t row = 0; row < json_array_size(items); row++) {
        for (size_t c = 0; c < count; c++) {
            json_t *value = table_raw_value(json_array_get(items, row), &columns[c]);
            buf_append_str(out, c > 0 ? "," : "");
            encode_csv(out, value);
            json_decref(value);
        }
        buf_append_str(out, "\n");
    }
}
