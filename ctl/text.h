/* Text for a terminal: how wide it is, and nothing in it that the terminal would obey. */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"

/* Columns that UTF-8 text takes; colour sequences (ESC [ ... m) take none. */
size_t text_width(const char *text, size_t len);

/* Appends text on one line: control characters become spaces, bytes that are not UTF-8 '?'. Names,
 * reasons and last words come from other people's programs; a terminal must not carry out what is
 * in them. */
void text_append_clean(struct buf *out, const char *text);
/* The same for what was appended since `start`. */
void text_clean(struct buf *out, size_t start);

/* How many bytes of the text fit into `columns`; colour sequences are kept whole. */
size_t text_cut(const char *text, size_t len, size_t columns);

/* ASCII letters to upper or lower case, in place. NULL is fine. */
void text_upper(char *text);
void text_lower(char *text);

/* Edits (insert, delete, replace, swap of neighbours) between two words, for hints. */
unsigned text_distance(const char *a, const char *b);

#endif
