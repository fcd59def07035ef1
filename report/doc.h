/* A page that is written once and comes out as Markdown or as one HTML file. All text is escaped
 * here; callers give it as it is. */
#ifndef REPORT_DOC_H
#define REPORT_DOC_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"

enum doc_format { DOC_MARKDOWN, DOC_HTML };

struct doc_plot { /* a picture beside a Markdown page */
    char *name;   /* owned; its file, without the folder */
    struct buf svg;
};
struct doc {
    enum doc_format format;
    const char *folder; /* borrowed; of Markdown's pictures, relative to the page. NULL: there are
                           none, sparklines stand for them */
    struct buf out;
    struct doc_plot *plots; /* owned; what belongs into the folder */
    size_t plot_count;
    /* of the table under way */
    struct buf *cells; /* owned */
    size_t cell_count, cell_capacity;
};

/* folder: for DOC_MARKDOWN, or NULL. */
void doc_init(struct doc *d, enum doc_format format, const char *folder);
void doc_fini(struct doc *d); /* a zeroed one is fine */

/* state: a word beside the title, such as RUNNING; look: "good", "bad", "live" or "". */
void doc_begin(struct doc *d, const char *title, const char *state, const char *look);
void doc_end(struct doc *d, const char *last_line);

void doc_heading(struct doc *d, const char *text);
void doc_text(struct doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Something that a reader must not miss. */
void doc_warn(struct doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A table: cells one after the other, then the whole. columns: titles, one that begins with '>' is
 * of numbers. In between nothing else is written. An empty table is nothing at all. */
void doc_cell(struct doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The buf for what the last cell is to hold, emptied. */
struct buf *doc_cell_buf(struct doc *d);
void doc_table(struct doc *d, const char *const *columns, size_t count);
/* The same cells as tiles with a large number: name, value, what else there is to say. */
void doc_tiles(struct doc *d);

/* A picture. name: of its file, letters and '-'. draw_svg: appends it for this kind of page; spark:
 * instead of it where there are no pictures, "" for none. */
struct doc_figure {
    const char *name, *title, *caption; /* borrowed */
    const char *spark;
};
void doc_figure(struct doc *d, const struct doc_figure *f, const struct buf *svg);
/* Does a picture for this page need to stand alone? */
bool doc_wants_alone(const struct doc *d);
/* Long text as it stands, folded away. */
void doc_fold(struct doc *d, const char *summary, const char *text);

#endif
