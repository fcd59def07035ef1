/* Text that comes from elsewhere, made harmless where it goes. What is not UTF-8, and what neither
 * HTML nor Markdown can hold, becomes '?' or a blank. */
#ifndef REPORT_ESCAPE_H
#define REPORT_ESCAPE_H

#include "lib/buf.h"

/* Into HTML, SVG or an attribute in quotes; newlines stay. */
void escape_html(struct buf *out, const char *text);
/* Into a paragraph or the cell of a table, on one line. */
void escape_markdown(struct buf *out, const char *text);

#endif
