#include "proto/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void format_duration(struct buf *out, int64_t ms)
{
    const int64_t second = 1000, minute = 60 * second, hour = 60 * minute, day = 24 * hour;
    if (ms <= 0) {
        buf_append_str(out, "0s");
    } else if (ms < second) {
        buf_printf(out, "%" PRId64 "ms", ms);
    } else if (ms < minute) {
        buf_printf(out, "%" PRId64 "s", ms / second);
    } else if (ms < hour) {
        buf_printf(out, "%" PRId64 "m%02" PRId64 "s", ms / minute, ms % minute / second);
    } else if (ms < day) {
        buf_printf(out, "%" PRId64 "h%02" PRId64 "m", ms / hour, ms % hour / minute);
    } else if (ms < 100 * day) {
        buf_printf(out, "%" PRId64 "d%02" PRId64 "h", ms / day, ms % day / hour);
    } else {
        buf_printf(out, "%" PRId64 "d", ms / day);
    }
}

void format_count(struct buf *out, double count)
{
    static const char *const units[] = {"", "K", "M", "G", "T", "P", "E"};
    if (fabs(count) < 10000) {
        buf_printf(out, "%.0f", count);
        return;
    }
    size_t unit = 0;
    while (fabs(count) >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        count /= 1000;
        unit++;
    }
    int decimals = fabs(count) < 9.995 ? 2 : fabs(count) < 99.95 ? 1 : 0;
    buf_printf(out, "%.*f%s", decimals, count, units[unit]);
}

void format_bytes(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    if (bytes < 1024) {
        buf_printf(out, "%" PRIu64 "%s", bytes, units[0]);
        return;
    }
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    buf_printf(out, "%.1f%s", value, units[unit]);
}

void format_gpu_hours(struct buf *out, uint64_t gpu_ms)
{
    uint64_t hundredths = gpu_ms / 36000 + (gpu_ms % 36000 >= 18000);
    buf_printf(out, "%" PRIu64 ".%02" PRIu64, hundredths / 100, hundredths % 100);
}

void format_usd(struct buf *out, int64_t micro_usd)
{
    uint64_t micro = micro_usd < 0 ? 0 - (uint64_t)micro_usd : (uint64_t)micro_usd;
    /* Cents, or hundredths of one. */
    bool small = micro > 0 && micro < 1000000;
    uint64_t unit = small ? 100 : 10000;
    uint64_t per_dollar = 1000000 / unit;
    uint64_t units = micro / unit + (micro % unit >= unit / 2);
    char digits[32];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, units / per_dollar);
    buf_append_str(out, micro_usd < 0 && units > 0 ? "-$" : "$");
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) {
            buf_append_str(out, ",");
        }
        buf_append(out, digits + i, 1);
    }
    buf_printf(out, ".%0*" PRIu64, small ? 4 : 2, units % per_dollar);
}

void format_time(struct buf *out, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[32];
    if (localtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm) == 0) {
        buf_printf(out, "%" PRId64, wall_ms);
        return;
    }
    buf_append_str(out, text);
}

void format_percent(struct buf *out, uint64_t part, uint64_t whole)
{
    if (whole == 0) {
        buf_append_str(out, "-");
    } else {
        buf_printf(out, "%.1f%%", 100.0 * (double)part / (double)whole);
    }
}
