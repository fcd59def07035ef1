/* Cells that several tables share: struct column's `text`. */
#ifndef CTL_CELLS_H
#define CTL_CELLS_H

#include "ctl/table.h"

void cell_time(struct buf *out, const json_t *item, const json_t *value);     /* local time */
void cell_age(struct buf *out, const json_t *item, const json_t *value);      /* how long ago */
void cell_duration(struct buf *out, const json_t *item, const json_t *value); /* of ms */
void cell_count(struct buf *out, const json_t *item, const json_t *value);    /* 15.3K */
void cell_bytes(struct buf *out, const json_t *item, const json_t *value);
void cell_gpu_hours(struct buf *out, const json_t *item, const json_t *value); /* of GPU-ms */
void cell_usd(struct buf *out, const json_t *item, const json_t *value);  /* of micro-dollars */
void cell_loss(struct buf *out, const json_t *item, const json_t *value); /* 2.3141 */
void cell_nodes(struct buf *out, const json_t *item,
                const json_t *value);                                    /* names as a host list */
void cell_yes(struct buf *out, const json_t *item, const json_t *value); /* "yes" or nothing */

#endif
