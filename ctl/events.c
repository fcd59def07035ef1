#include "ctl/events.h"

#include <inttypes.h>
#include <stdio.h>

#include "ctl/cells.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "proto/pick.h"

static const struct column event_columns[] = {
    {"SEQ", "seq", COLUMN_RIGHT, NULL, NULL},
    {"TIME", "at", 0, cell_time, NULL},
    {"KIND", "kind", 0, NULL, NULL},
    {"JOB", "job", COLUMN_RIGHT, NULL, NULL},
    {"EPOCH", "epoch", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"NODE", "node", COLUMN_SPARE, NULL, NULL},
    {"TEXT", "text", COLUMN_WRAP, NULL, NULL},
};
const struct listing event_listing = LISTING("event", "seq", event_columns);

void event_table(const struct output *o, struct buf *out, const char *heading, const json_t *events)
{
    static const struct column columns[] = {
        {"TIME", "at", 0, cell_time, NULL},
        {"KIND", "kind", 0, NULL, NULL},
        {"EPOCH", "epoch", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
        {"NODE", "node", COLUMN_SPARE, NULL, NULL},
        {"TEXT", "text", COLUMN_WRAP, NULL, NULL},
    };
    page_table(o, out, heading, events, columns, sizeof columns / sizeof columns[0]);
}

static void append_padded(struct buf *out, const char *text, size_t width)
{
    size_t start = out->len;
    text_append_clean(out, text[0] != 0 ? text : "-");
    size_t used = text_width((const char *)out->data + start, out->len - start);
    buf_printf(out, "%*s", used < width ? (int)(width - used) + 2 : 2, "");
}

void event_line(const struct output *o, struct buf *out, const json_t *event)
{
    struct buf time = {0};
    char job[32] = "";
    cell_time(&time, event, pick(event, "at"));
    if (pick(event, "job") != NULL) {
        snprintf(job, sizeof job, "job %" PRId64, pick_int(event, "job"));
    }
    buf_printf(out, "%6" PRId64 "  ", pick_int(event, "seq"));
    terminal_paint(&o->terminal, out, COLOUR_DIM, buf_cstr(&time));
    buf_append_str(out, "  ");
    append_padded(out, pick_text(event, "kind"), 18);
    append_padded(out, job, 7);
    append_padded(out, pick_text(event, "node"), 6);
    text_append_clean(out, pick_text(event, "text"));
    buf_append_str(out, "\n");
    buf_fini(&time);
}
