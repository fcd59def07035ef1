/* Durations and counts in the forms people write, without floating point: 14.8T is
 * 14,800,000,000,000 exactly or refused. */
#include <stdbool.h>
#include <string.h>

#include "proto/jobspec.h"

/* A decimal number: value = digits * 10^-decimals. */
struct decimal {
    uint64_t digits;
    int decimals;
};

static const char *scan_decimal(const char *p, struct decimal *d)
{
    bool seen = false;
    bool fraction = false;
    *d = (struct decimal){0};
    for (;; p++) {
        if (*p == '.' && !fraction) {
            fraction = true;
        } else if (*p >= '0' && *p <= '9') {
            if (__builtin_mul_overflow(d->digits, 10u, &d->digits) ||
                __builtin_add_overflow(d->digits, (uint64_t)(*p - '0'), &d->digits)) {
                return NULL;
            }
            d->decimals += fraction;
            seen = true;
        } else {
            return seen ? p : NULL;
        }
    }
}

/* digits * 10^-decimals * factor * 10^power, false unless it is whole and fits. */
static bool whole(struct decimal d, uint64_t factor, int power, uint64_t *value)
{
    uint64_t v;
    if (__builtin_mul_overflow(d.digits, factor, &v)) {
        return false;
    }
    for (power -= d.decimals; power > 0 && v != 0; power--) {
        if (__builtin_mul_overflow(v, 10u, &v)) {
            return false;
        }
    }
    for (; power < 0 && v != 0; power++) {
        if (v % 10 != 0) {
            return false;
        }
        v /= 10;
    }
    *value = v;
    return true;
}

static const struct unit {
    const char *name;
    uint64_t ms;
} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

#define DURATION_FORMS "such as 90s, 1500ms, 5m, 1h30m or 30d; a bare number is seconds"
/* A hundred years: sums with a time of day cannot overflow. */
#define DURATION_MS_MAX (36500ull * 86400000ull)

static const char *scan_unit(const char *p, uint64_t *ms)
{
    size_t len = strspn(p, "abcdefghijklmnopqrstuvwxyz");
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strlen(units[i].name) == len && memcmp(units[i].name, p, len) == 0) {
            *ms = units[i].ms;
            return p + len;
        }
    }
    return NULL;
}

int duration_parse(const char *text, uint64_t *ms, struct err *err)
{
    uint64_t total = 0;
    const char *p = text;
    do {
        struct decimal d;
        uint64_t unit_ms = 1000;
        uint64_t part;
        const char *end = scan_decimal(p, &d);
        if (end != NULL && !(p == text && *end == 0)) {
            end = scan_unit(end, &unit_ms);
        }
        if (end == NULL || !whole(d, unit_ms, 0, &part)) {
            return err_set(err, ERR_INVALID, "'%.60s' is not a duration (allowed: %s)", text,
                           DURATION_FORMS);
        }
        if (part > DURATION_MS_MAX - total) {
            return err_set(err, ERR_INVALID, "'%.60s' is too long (allowed: up to 36500d)", text);
        }
        total += part;
        p = end;
    } while (*p != 0);
    *ms = total;
    return 0;
}

/* The exponent of a count: of e-notation, or a suffix. -1 when it is neither. */
static int scan_power(const char *p)
{
    static const char suffixes[] = "kKMGBT";
    static const int powers[] = {3, 3, 6, 9, 9, 12};
    if (*p == 0) {
        return 0;
    }
    if (*p == 'e' || *p == 'E') {
        p += p[1] == '+' ? 2 : 1;
        size_t digits = strspn(p, "0123456789");
        if (digits == 0 || digits > 2 || p[digits] != 0) {
            return -1;
        }
        return digits == 1 ? p[0] - '0' : (p[0] - '0') * 10 + (p[1] - '0');
    }
    const char *at = strchr(suffixes, *p);
    return at != NULL && p[1] == 0 ? powers[at - suffixes] : -1;
}

int count_parse(const char *text, uint64_t *count, struct err *err)
{
    struct decimal d;
    const char *end = scan_decimal(text, &d);
    int power = end != NULL ? scan_power(end) : -1;
    if (power < 0 || !whole(d, 1, power, count)) {
        return err_set(err, ERR_INVALID,
                       "'%.60s' is not a whole number (allowed: such as 200, 64K, 1.5e9 or 14.8T)",
                       text);
    }
    return 0;
}
