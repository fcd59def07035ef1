/* The aligned text of a table. All cells are made first; then the columns are fitted to the
 * terminal: spare ones are left out, long ones shortened, and the last one takes what is left. */
#include <stdlib.h>
#include <string.h>

#include "ctl/encode.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "lib/mem.h"

#define GAP       2u
#define WIDTH_MIN 8u  /* a column is not shortened below this */
#define LAST_MIN  16u /* nor the last one below this */
#define WRAP_MIN  40u /* or this, where it goes on in the next line */

struct cell {
    size_t at; /* in the grid's text */
    size_t len;
    size_t width;
};

struct grid {
    const struct table_view *view;
    const struct column **columns;
    size_t column_count;
    size_t row_count;   /* with the header */
    struct buf text;    /* of all cells, each with a NUL behind it */
    struct cell *cells; /* row by row */
    size_t *widths;
    bool *left_out;
};

static void append_cell(struct buf *out, const json_t *item, const struct column *column)
{
    json_t *value = table_raw_value(item, column);
    size_t start = out->len;
    if (value != NULL && column->text != NULL) {
        column->text(out, item, value);
    } else if (json_is_string(value)) {
        buf_append_str(out, json_string_value(value));
    } else if (value != NULL) {
        encode_json(out, value, false);
    }
    text_clean(out, start);
    if (out->len == start) {
        buf_append_str(out, "-");
    }
    json_decref(value);
}

static void fill(struct grid *g, const json_t *items, const struct column *columns, size_t count)
{
    g->columns = mem_alloc_array(count, sizeof *g->columns);
    for (size_t i = 0; i < count; i++) {
        if ((columns[i].flags & COLUMN_CSV) == 0 &&
            (g->view->wide || (columns[i].flags & COLUMN_WIDE) == 0)) {
            g->columns[g->column_count++] = &columns[i];
        }
    }
    g->row_count = json_array_size(items) + 1;
    g->cells = mem_alloc_array(g->row_count * g->column_count, sizeof *g->cells);
    g->widths = mem_alloc_array(g->column_count, sizeof *g->widths);
    g->left_out = mem_alloc_array(g->column_count, sizeof *g->left_out);
    for (size_t row = 0; row < g->row_count; row++) {
        for (size_t c = 0; c < g->column_count; c++) {
            struct cell *cell = &g->cells[row * g->column_count + c];
            cell->at = g->text.len;
            if (row == 0) {
                buf_append_str(&g->text, g->columns[c]->title);
            } else {
                append_cell(&g->text, json_array_get(items, row - 1), g->columns[c]);
            }
            cell->len = g->text.len - cell->at;
            buf_append(&g->text, "", 1);
            cell->width = text_width((const char *)g->text.data + cell->at, cell->len);
            bool counts = row > 0 || !g->view->no_header;
            g->widths[c] = counts && cell->width > g->widths[c] ? cell->width : g->widths[c];
        }
    }
}

static void grid_fini(struct grid *g)
{
    buf_fini(&g->text);
    free(g->cells);
    free(g->widths);
    free(g->left_out);
    free(g->columns);
}

/* ---- fitting */

/* Numbers, states and times are shown whole or not at all. */
static bool may_shrink(const struct grid *g, size_t c)
{
    unsigned flags = g->columns[c]->flags;
    bool last = c + 1 == g->column_count && (flags & (COLUMN_RIGHT | COLUMN_STATE)) == 0;
    return (last || (flags & COLUMN_LONG) != 0) && !g->left_out[c];
}

static size_t least_width(const struct grid *g, size_t c)
{
    bool wraps = (g->columns[c]->flags & COLUMN_WRAP) != 0;
    size_t least = c + 1 < g->column_count ? WIDTH_MIN : wraps ? WRAP_MIN : LAST_MIN;
    return may_shrink(g, c) && g->widths[c] > least ? least : g->widths[c];
}

/* Of a row, with the last column at its least. */
static size_t total_width(const struct grid *g)
{
    size_t total = 0;
    for (size_t c = 0; c < g->column_count; c++) {
        bool last = c + 1 == g->column_count;
        total += g->left_out[c] ? 0 : last ? least_width(g, c) : g->widths[c] + GAP;
    }
    return total;
}

static bool leave_one_out(struct grid *g)
{
    for (size_t c = g->column_count; c-- > 0;) {
        if ((g->columns[c]->flags & COLUMN_SPARE) != 0 && !g->left_out[c]) {
            g->left_out[c] = true;
            return true;
        }
    }
    return false;
}

static bool shorten_one(struct grid *g)
{
    size_t widest = g->column_count;
    for (size_t c = 0; c + 1 < g->column_count; c++) {
        bool wider = widest == g->column_count || g->widths[c] > g->widths[widest];
        if (g->widths[c] > least_width(g, c) && wider) {
            widest = c;
        }
    }
    if (widest == g->column_count) {
        return false;
    }
    g->widths[widest]--;
    return true;
}

static void fit(struct grid *g)
{
    size_t room = g->view->terminal->columns;
    size_t last = g->column_count - 1;
    if (!g->view->terminal->is_tty || g->view->wide) {
        return;
    }
    while (total_width(g) > room && leave_one_out(g)) {
    }
    while (total_width(g) > room && shorten_one(g)) {
    }
    size_t taken = total_width(g) - least_width(g, last);
    size_t left = room > taken ? room - taken : 0;
    if (may_shrink(g, last) && g->widths[last] > left) {
        size_t least = least_width(g, last);
        g->widths[last] = left > least ? left : least;
    }
}

/* ---- writing */

static void append_text(const struct grid *g, struct buf *out, enum colour colour,
                        const struct cell *cell, size_t room)
{
    const struct terminal *t = g->view->terminal;
    const char *text = (const char *)g->text.data + cell->at;
    if (cell->width <= room) {
        terminal_paint(t, out, colour, text);
        return;
    }
    struct buf cut = {0};
    buf_append(&cut, text, text_cut(text, cell->len, room - 1));
    buf_append_str(&cut, t->utf8 ? "…" : "~");
    terminal_paint(t, out, colour, buf_cstr(&cut));
    buf_fini(&cut);
}

static void append_blanks(struct buf *out, size_t count)
{
    memset(buf_reserve(out, count), ' ', count);
    out->len += count;
}

/* Breaks at blanks, or in a word that has no room in a line of its own. */
static void append_wrapped(struct buf *out, const char *text, size_t room, size_t indent)
{
    size_t len = strlen(text);
    while (text_width(text, len) > room) {
        size_t cut = text_cut(text, len, room);
        size_t blank = cut;
        while (blank > 0 && text[blank] != ' ') {
            blank--;
        }
        cut = blank > 0 ? blank : cut;
        buf_append(out, text, cut);
        buf_append_str(out, "\n");
        append_blanks(out, indent);
        cut += strspn(text + cut, " ");
        text += cut;
        len -= cut;
    }
    buf_append_str(out, text);
}

static void append_row(const struct grid *g, struct buf *out, size_t row)
{
    size_t used = 0;
    for (size_t c = 0; c < g->column_count; c++) {
        const struct cell *cell = &g->cells[row * g->column_count + c];
        const char *text = (const char *)g->text.data + cell->at;
        unsigned flags = g->columns[c]->flags;
        size_t pad = g->widths[c] > cell->width ? g->widths[c] - cell->width : 0;
        enum colour colour = row == 0                      ? COLOUR_BOLD
                             : (flags & COLUMN_STATE) != 0 ? terminal_state_colour(text)
                                                           : COLOUR_NONE;
        if (g->left_out[c]) {
            continue;
        }
        append_blanks(out, (flags & COLUMN_RIGHT) != 0 ? pad : 0);
        if ((flags & COLUMN_WRAP) != 0 && row > 0) {
            append_wrapped(out, text, g->widths[c], used);
        } else {
            append_text(g, out, colour, cell, g->widths[c]);
        }
        used += g->widths[c] + GAP;
        if (c + 1 < g->column_count) {
            append_blanks(out, GAP + ((flags & COLUMN_RIGHT) != 0 ? 0 : pad));
        }
    }
    buf_append_str(out, "\n");
}

void table_text(struct buf *out, const json_t *items, const struct column *columns, size_t count,
                const struct table_view *view)
{
    struct grid g = {.view = view};
    fill(&g, items, columns, count);
    fit(&g);
    for (size_t row = view->no_header ? 1 : 0; row < g.row_count; row++) {
        append_row(&g, out, row);
    }
    grid_fini(&g);
}
