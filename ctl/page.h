/* Pages of `show` commands: a title, fields, indented tables. */
#ifndef CTL_PAGE_H
#define CTL_PAGE_H

#include "ctl/output.h"

/* "job 12 (name): STATE", the state in its colour. name "" and state "" are left out. */
void page_title(const struct output *o, struct buf *out, const char *kind, const char *id,
                const char *name, const char *state);
/* Starts a field; what it says and the newline are appended by the caller. */
void page_label(struct buf *out, const char *label);
/* A whole field of one text; nothing when the text is empty. */
void page_text(struct buf *out, const char *label, const char *text);
/* A whole field "2026-11-23 21:08:54, 3m10s ago", or "..., in 2h"; nothing when the time is absent.
 */
void page_time(struct buf *out, const char *label, const json_t *object, const char *path);
/* An empty line, a heading, an indented table; nothing when there are no rows. */
void page_table(const struct output *o, struct buf *out, const char *heading, const json_t *items,
                const struct column *columns, size_t count);

#endif
