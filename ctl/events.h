/* What an event looks like: its row. */
#ifndef CTL_EVENTS_H
#define CTL_EVENTS_H

#include "ctl/output.h"

extern const struct listing event_listing;

/* Of one job, as part of its page. */
void event_table(const struct output *o, struct buf *out, const char *heading,
                 const json_t *events);
/* One line of `event tail`, in fixed widths. */
void event_line(const struct output *o, struct buf *out, const json_t *event);

#endif
