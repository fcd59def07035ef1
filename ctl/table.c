#include "ctl/table.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ctl/encode.h"
#include "ctl/pick.h"
#include "ctl/text.h"
#include "lib/mem.h"

#define GAP 2u

/* New reference, or NULL. */
static json_t *raw_value(const json_t *item, const struct column *column)
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

static void append_cell(struct buf *out, const json_t *item, const struct column *column)
{
    json_t *value = raw_value(item, column);
    struct buf text = {0};
    if (value != NULL && column->text != NULL) {
        column->text(&text, item, value);
    } else if (json_is_string(value)) {
        buf_append_str(&text, json_string_value(value));
    } else if (value != NULL) {
        encode_json(&text, value, false);
    }
    size_t start = out->len;
    text_append_clean(out, buf_cstr(&text));
    if (out->len == start) {
        buf_append_str(out, "-");
    }
    buf_fini(&text);
    json_decref(value);
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
        keys[i].value = raw_value(keys[i].item, column);
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

/* ---- text */

struct grid {
    const struct column **columns;
    size_t column_count;
    size_t row_count; /* with the header */
    char **cells;     /* row by row, owned */
    size_t *widths;
};

static void grid_fill(struct grid *g, const json_t *items, const struct column *columns,
                      size_t count, const struct table_view *view)
{
    g->columns = mem_alloc_array(count, sizeof *g->columns);
    for (size_t i = 0; i < count; i++) {
        if ((columns[i].flags & COLUMN_CSV) == 0 &&
            (view->wide || (columns[i].flags & COLUMN_WIDE) == 0)) {
            g->columns[g->column_count++] = &columns[i];
        }
    }
    size_t rows = json_array_size(items);
    g->row_count = rows + 1;
    g->cells = mem_alloc_array(g->row_count * g->column_count, sizeof *g->cells);
    g->widths = mem_alloc_array(g->column_count, sizeof *g->widths);
    for (size_t row = 0; row < g->row_count; row++) {
        for (size_t c = 0; c < g->column_count; c++) {
            struct buf cell = {0};
            if (row == 0) {
                buf_append_str(&cell, g->columns[c]->title);
            } else {
                append_cell(&cell, json_array_get(items, row - 1), g->columns[c]);
            }
            char *text = buf_cstr(&cell); /* the cell keeps the buffer's memory */
            g->cells[row * g->column_count + c] = text;
            size_t width = text_width(text, cell.len);
            bool counts = row > 0 || !view->no_header;
            g->widths[c] = counts && width > g->widths[c] ? width : g->widths[c];
        }
    }
}

static void grid_fini(struct grid *g)
{
    for (size_t i = 0; i < g->row_count * g->column_count; i++) {
        free(g->cells[i]);
    }
    free(g->cells);
    free(g->widths);
    free(g->columns);
}

static void append_last(struct buf *out, const char *cell, size_t room, bool utf8)
{
    size_t len = strlen(cell);
    if (text_width(cell, len) <= room) {
        buf_append_str(out, cell);
        return;
    }
    buf_append(out, cell, text_cut(cell, len, room - 1));
    buf_append_str(out, utf8 ? "…" : "~");
}

static void append_row(struct buf *out, const struct grid *g, size_t row,
                       const struct table_view *view)
{
    const struct terminal *t = view->terminal;
    size_t used = 0;
    for (size_t c = 0; c < g->column_count; c++) {
        const char *cell = g->cells[row * g->column_count + c];
        const struct column *column = g->columns[c];
        bool last = c + 1 == g->column_count;
        size_t width = text_width(cell, strlen(cell));
        size_t pad = g->widths[c] > width ? g->widths[c] - width : 0;
        if (column->flags & COLUMN_RIGHT) {
            buf_printf(out, "%*s", (int)pad, "");
        }
        enum colour colour = row == 0                         ? COLOUR_BOLD
                             : (column->flags & COLUMN_STATE) ? terminal_state_colour(cell)
                                                              : COLOUR_NONE;
        if (last && colour == COLOUR_NONE && t->is_tty && !view->wide) {
            append_last(out, cell, t->columns > used + 12 ? t->columns - used : 12, t->utf8);
        } else {
            terminal_paint(t, out, colour, cell);
        }
        if (!last) {
            buf_printf(out, "%*s", (int)(GAP + (column->flags & COLUMN_RIGHT ? 0 : pad)), "");
        }
        used += g->widths[c] + GAP;
    }
    buf_append_str(out, "\n");
}

void table_text(struct buf *out, const json_t *items, const struct column *columns, size_t count,
                const struct table_view *view)
{
    struct grid g = {0};
    grid_fill(&g, items, columns, count, view);
    for (size_t row = view->no_header ? 1 : 0; row < g.row_count; row++) {
        append_row(out, &g, row, view);
    }
    grid_fini(&g);
}

void table_csv(struct buf *out, const json_t *items, const struct column *columns, size_t count,
               bool no_header)
{
    for (size_t c = 0; c < count && !no_header; c++) {
        buf_printf(out, "%s%s", c > 0 ? "," : "", columns[c].key);
    }
    buf_append_str(out, no_header ? "" : "\n");
    for (size_t row = 0; row < json_array_size(items); row++) {
        for (size_t c = 0; c < count; c++) {
            json_t *value = raw_value(json_array_get(items, row), &columns[c]);
            buf_append_str(out, c > 0 ? "," : "");
            encode_csv(out, value);
            json_decref(value);
        }
        buf_append_str(out, "\n");
    }
}
