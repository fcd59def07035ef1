#include "ctl/page.h"

#include <string.h>

#include "ctl/text.h"
#include "lib/clock.h"
#include "proto/format.h"
#include "proto/pick.h"

#define INDENT "  "

void page_title(const struct output *o, struct buf *out, const char *kind, const char *id,
                const char *name, const char *state)
{
    struct buf title = {0};
    buf_printf(&title, "%s ", kind);
    text_append_clean(&title, id);
    if (name[0] != 0) {
        buf_append_str(&title, " (");
        text_append_clean(&title, name);
        buf_append_str(&title, ")");
    }
    terminal_paint(&o->terminal, out, COLOUR_BOLD, buf_cstr(&title));
    buf_fini(&title);
    if (state[0] != 0) {
        buf_append_str(out, ": ");
        terminal_paint(&o->terminal, out, terminal_state_colour(state), state);
    }
    buf_append_str(out, "\n");
}

void page_label(struct buf *out, const char *label)
{
    buf_printf(out, INDENT "%-13s ", label);
}

void page_text(struct buf *out, const char *label, const char *text)
{
    if (text[0] != 0) {
        page_label(out, label);
        text_append_clean(out, text);
        buf_append_str(out, "\n");
    }
}

void page_time(struct buf *out, const char *label, const json_t *object, const char *path)
{
    int64_t at_ms = 0;
    if (pick_time(object, path, &at_ms)) {
        page_label(out, label);
        format_time(out, at_ms);
        int64_t ago_ms = clock_wall_ms() - at_ms;
        buf_append_str(out, ago_ms < 0 ? ", in " : ", ");
        format_duration(out, ago_ms < 0 ? -ago_ms : ago_ms);
        buf_append_str(out, ago_ms < 0 ? "\n" : " ago\n");
    }
}

void page_table(const struct output *o, struct buf *out, const char *heading, const json_t *items,
                const struct column *columns, size_t count)
{
    if (json_array_size(items) == 0) {
        return;
    }
    struct terminal narrower = o->terminal;
    narrower.columns -= strlen(INDENT);
    const struct table_view view = {&narrower, o->format == OUTPUT_WIDE, false};
    struct buf text = {0};
    table_text(&text, items, columns, count, &view);
    buf_append_str(out, "\n");
    terminal_paint(&o->terminal, out, COLOUR_BOLD, heading);
    buf_append_str(out, "\n");
    for (const char *line = buf_cstr(&text); *line != 0;) {
        size_t len = strcspn(line, "\n") + 1;
        buf_append_str(out, INDENT);
        buf_append(out, line, len);
        line += len;
    }
    buf_fini(&text);
}
