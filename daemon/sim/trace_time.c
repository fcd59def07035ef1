#include "daemon/sim/trace_time.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "proto/jobspec.h"

/* ---- units */
static const struct {
    const char *name;
    double seconds;
} units[] = {
    {"ms", 0.001},   {"msec", 0.001}, {"millis", 0.001}, {"milliseconds", 0.001},
    {"s", 1},        {"sec", 1},      {"secs", 1},       {"second", 1},
    {"seconds", 1},  {"min", 60},     {"mins", 60},      {"minute", 60},
    {"minutes", 60}, {"h", 3600},     {"hr", 3600},      {"hrs", 3600},
    {"hour", 3600},  {"hours", 3600}, {"d", 86400},      {"day", 86400},
    {"days", 86400}, {"us", 1e-6},    {"usec", 1e-6},    {"microseconds", 1e-6},
};

double trace_time_unit(char *title)
{
    size_t end = strlen(title);
    while (end > 0 && !isalnum((unsigned char)title[end - 1])) {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && isalnum((unsigned char)title[begin - 1])) {
        begin--;
    }
    for (size_t i = 0; begin > 0 && i < sizeof units / sizeof units[0]; i++) {
        if (strlen(units[i].name) == end - begin &&
            strncasecmp(title + begin, units[i].name, end - begin) == 0) {
            title[begin] = 0;
            return units[i].seconds;
        }
    }
    return 0;
}

/* ---- lengths */
static bool read_clock(const char *text, double *seconds)
{
    unsigned days = 0, a, b;
    double c;
    int used = 0;
    if ((sscanf(text, "%u-%n", &days, &used) == 1 && used > 0) ||
        (sscanf(text, "%u days %n", &days, &used) == 1 && used > 0) ||
        (sscanf(text, "%u day, %n", &days, &used) == 1 && used > 0)) {
        text += used;
    } else {
        days = 0;
    }
    int end = 0;
    if (sscanf(text, "%u:%u:%lf%n", &a, &b, &c, &end) == 3 && text[end] == 0) {
        *seconds = days * 86400.0 + a * 3600.0 + b * 60.0 + c;
        return true;
    }
    end = 0;
    if (sscanf(text, "%u:%lf%n", &a, &c, &end) == 2 && text[end] == 0) {
        *seconds = days * 86400.0 + a * 60.0 + c;
        return true;
    }
    return false;
}

bool trace_time_length(const char *text, double *seconds)
{
    uint64_t ms;
    struct err ignored = {0};
    if (duration_parse(text, &ms, &ignored) == 0) {
        *seconds = (double)ms / 1000;
        return true;
    }
    return read_clock(text, seconds);
}

/* ---- dates */
/* +08:00, +0800, +08; the text after it. */
static const char *read_offset(const char *text, double *seconds)
{
    int sign = *text == '-' ? -1 : 1, hours, minutes = 0, used = 0;
    if (sscanf(text + 1, "%2d%n", &hours, &used) != 1) {
        return text;
    }
    text += 1 + used;
    text += *text == ':';
    if (sscanf(text, "%2d%n", &minutes, &used) == 1) {
        text += used;
    }
    *seconds -= sign * (hours * 3600.0 + minutes * 60.0);
    return text;
}

bool trace_time_date(const char *text, double *seconds)
{
    static const char *const forms[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%dT%H:%M",    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M",
                                        "%Y-%m-%d",          "%Y/%m/%d"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end == NULL) {
            continue;
        }
        *seconds = (double)timegm(&tm);
        if (*end == '.') {
            char *after;
            *seconds += strtod(end, &after);
            end = after;
        }
        end += *end == ' ';
        if (*end == '+' || *end == '-') {
            end = read_offset(end, seconds);
        } else if (strcasecmp(end, "z") == 0 || strcasecmp(end, "utc") == 0 ||
                   strcasecmp(end, "gmt") == 0) {
            end += strlen(end);
        }
        if (*end == 0) {
            return true;
        }
    }
    return false;
}
