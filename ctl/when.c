#include "ctl/when.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/jobspec.h"

/* Exactly `count` digits, at most `most`. Moves *c past them. */
static bool take(const char **c, int count, int most, int *value)
{
    *value = 0;
    for (int i = 0; i < count; i++, (*c)++) {
        if (**c < '0' || **c > '9') {
            return false;
        }
        *value = *value * 10 + (**c - '0');
    }
    return *value <= most;
}

static bool take_char(const char **c, const char *any_of)
{
    if (**c == 0 || strchr(any_of, **c) == NULL) {
        return false;
    }
    (*c)++;
    return true;
}

/* .123456: ms, digits past the third are dropped. */
static bool take_fraction(const char **c, int64_t *ms)
{
    int scale = 100;
    *ms = 0;
    if (!take_char(c, ".")) {
        return true;
    }
    if (**c < '0' || **c > '9') {
        return false;
    }
    for (; **c >= '0' && **c <= '9'; (*c)++, scale /= 10) {
        *ms += (**c - '0') * scale;
    }
    return true;
}

/* Z or +01:00; *local is set when there is none. */
static bool take_zone(const char **c, bool *local, int64_t *offset_ms)
{
    int hours, minutes;
    *local = **c == 0;
    *offset_ms = 0;
    if (*local || take_char(c, "Zz")) {
        return true;
    }
    bool west = **c == '-';
    if (!take_char(c, "+-") || !take(c, 2, 23, &hours) || !take_char(c, ":") ||
        !take(c, 2, 59, &minutes)) {
        return false;
    }
    *offset_ms = (hours * 60 + minutes) * (west ? -60000LL : 60000LL);
    return true;
}

static int days_of(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool parse_date(const char *c, int64_t *wall_ms)
{
    struct tm tm = {.tm_isdst = -1};
    int64_t ms = 0, offset_ms = 0;
    bool local = true;
    if (!take(&c, 4, 9999, &tm.tm_year) || !take_char(&c, "-") || !take(&c, 2, 12, &tm.tm_mon) ||
        !take_char(&c, "-") || !take(&c, 2, 31, &tm.tm_mday)) {
        return false;
    }
    if (take_char(&c, "Tt ")) {
        if (!take(&c, 2, 23, &tm.tm_hour) || !take_char(&c, ":") || !take(&c, 2, 59, &tm.tm_min)) {
            return false;
        }
        if (take_char(&c, ":") && (!take(&c, 2, 60, &tm.tm_sec) || !take_fraction(&c, &ms))) {
            return false;
        }
        if (!take_zone(&c, &local, &offset_ms)) {
            return false;
        }
    }
    if (*c != 0 || tm.tm_mon == 0 || tm.tm_mday == 0 ||
        tm.tm_mday > days_of(tm.tm_year, tm.tm_mon)) {
        return false;
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t seconds = local ? mktime(&tm) : timegm(&tm);
    *wall_ms = (int64_t)seconds * 1000 + ms - offset_ms;
    return true;
}

int when_parse(const char *text, int64_t now_ms, int64_t *wall_ms, struct err *err)
{
    uint64_t ago = 0;
    uint64_t ahead = 0;
    if (strcmp(text, "now") == 0) {
        *wall_ms = now_ms;
        return 0;
    }
    if (strlen(text) >= 10 && text[4] == '-') {
        if (parse_date(text, wall_ms)) {
            return 0;
        }
    } else if (duration_parse(text, &ago, NULL) == 0 &&
               ago <= (uint64_t)(now_ms > 0 ? now_ms : 0)) {
        *wall_ms = now_ms - (int64_t)ago;
        return 0;
    }
    if (text[0] == '+' && duration_parse(text + 1, &ahead, NULL) == 0 &&
        ahead <= (uint64_t)(INT64_MAX / 4)) {
        *wall_ms = now_ms + (int64_t)ahead;
        return 0;
    }
    return err_set(err, ERR_USAGE,
                   "'%s' is no time (write 2026-11-23, 2026-11-23T21:08, 2026-11-23T21:08:54Z, "
                   "7d for that long ago, or +2h for that long from now)",
                   text);
}
