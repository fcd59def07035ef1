/* The only file that reads a clock. Milliseconds everywhere. */
#ifndef LIB_CLOCK_H
#define LIB_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_TEXT_BYTES 32

/* Unix time in ms. May step; use it for stamps that people read and that outlive the process. */
int64_t clock_wall_ms(void);
/* Never goes backwards, runs on while the machine sleeps (CLOCK_BOOTTIME). For deadlines and
 * durations. */
int64_t clock_boot_ms(void);
/* The same in nanoseconds, for step timings. */
int64_t clock_boot_ns(void);
void clock_sleep_ms(int64_t ms);

/* RFC 3339 UTC with milliseconds: 2026-11-23T21:08:54.123Z. text has CLOCK_TEXT_BYTES. */
void clock_format_utc(int64_t wall_ms, char *text);
/* What that writes, with or without the milliseconds; false for any other text. */
bool clock_parse_utc(const char *text, int64_t *wall_ms);

#endif
