/* Points in time as people and JSON write them. */
#ifndef CTL_WHEN_H
#define CTL_WHEN_H

#include <stdint.h>

#include "lib/err.h"

/* 2026-11-23T21:08:54.123Z and with an offset (RFC 3339); 2026-11-23, 2026-11-23T21:08, 2026-11-23
 * 21:08:54 in local time; "now"; a duration such as 7d: that long before now_ms; +2h: that long
 * after it. ERR_USAGE for anything else. */
int when_parse(const char *text, int64_t now_ms, int64_t *wall_ms, struct err *err);

#endif
