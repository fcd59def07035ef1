/* What a node looks like: its row and its page; lists of node names. */
#ifndef CTL_NODES_H
#define CTL_NODES_H

#include "ctl/output.h"

extern const struct listing node_listing;

void node_page(const struct output *o, struct buf *out, const json_t *node);

/* An array of names as a host list: gpu[001-004]. */
void nodes_append(struct buf *out, const json_t *names);

#endif
