/* What a checkpoint looks like: its row and its page. */
#ifndef CTL_CKPTS_H
#define CTL_CKPTS_H

#include "ctl/output.h"

extern const struct listing ckpt_listing;

void ckpt_page(const struct output *o, struct buf *out, const json_t *ckpt);
/* Of one job, as part of its page; deleted ones are only counted. */
void ckpt_table(const struct output *o, struct buf *out, const json_t *ckpts);

#endif
