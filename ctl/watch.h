/* --watch: a view again and again. */
#ifndef CTL_WATCH_H
#define CTL_WATCH_H

#include "ctl/ctl.h"

/* Runs the command's view every interval_ms until interrupted. On a terminal it is redrawn in
 * place; elsewhere each page follows the last one. A coordinator that cannot be reached is said
 * once and waited for, except the first time: then it is returned. Other errors are returned too.
 */
int watch_view(struct ctl *ctl, int64_t interval_ms, struct err *err);

/* The bytes that redraw a page on a terminal of that size, without flicker: each line overwritten
 * and cleared to its end, what does not fit left out with a count. Two lines come first: a heading,
 * and what is wrong or "". */
void watch_frame(struct buf *out, const char *heading, const char *trouble, const char *page,
                 const struct terminal *t);

#endif
