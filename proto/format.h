/* Numbers, times and money as people read them. All append to a buf. */
#ifndef PROTO_FORMAT_H
#define PROTO_FORMAT_H

#include <stdint.h>

#include "lib/buf.h"

/* 350ms, 12s, 3m10s, 5h02m, 1d02h, 400d. Negative (a clock that stepped) is 0s. */
void format_duration(struct buf *out, int64_t ms);
/* 9999, 49.2K, 1.23M, 14.8T. */
void format_count(struct buf *out, double count);
/* 512 B, 12.3 KiB, 1.2 GiB. */
void format_bytes(struct buf *out, uint64_t bytes);
/* GPU-hours with two decimals, rounded half up: 12.35. */
void format_gpu_hours(struct buf *out, uint64_t gpu_ms);
/* $1,234,567.89, and $0.0123 under a dollar; rounded half away from zero. */
void format_usd(struct buf *out, int64_t micro_usd);
/* Local time: 2026-11-23 21:08:54. */
void format_time(struct buf *out, int64_t wall_ms);
/* 61.3%; "-" when the whole is 0. */
void format_percent(struct buf *out, uint64_t part, uint64_t whole);

#endif
