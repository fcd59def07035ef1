#include "lib/hostlist.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define HOST_BYTES_MAX 255u
#define DIGITS_MAX     18u

static void add(struct hostlist *h, const char *name)
{
    void *array = h->names;
    mem_grow(&array, &h->capacity, h->count + 1, sizeof(char *));
    h->names = array;
    h->names[h->count++] = mem_strdup(name);
}

void hostlist_fini(struct hostlist *h)
{
    for (size_t i = 0; i < h->count; i++) {
        free(h->names[i]);
    }
    free(h->names);
    *h = (struct hostlist){0};
}

/* ---- expanding */
static size_t scan_number(const char *p, uint64_t *number)
{
    size_t digits = strspn(p, "0123456789");
    *number = digits > 0 && digits <= DIGITS_MAX ? strtoull(p, NULL, 10) : 0;
    return digits <= DIGITS_MAX ? digits : 0;
}

static int refuse(struct err *err, const char *text, const char *what)
{
    return err_set(err, ERR_USAGE, "host list '%.100s': %s (the form is gpu[001-032,040],login1)",
                   text, what);
}

static int expand_rest(struct hostlist *h, const char *text, const char *made, const char *rest,
                       const char *end, struct err *err);

/* One item of a bracket, a number or a range; *p is moved past it. */
static int expand_range(struct hostlist *h, const char *text, const char *made, const char **p,
                        const char *after, const char *end, struct err *err)
{
    uint64_t low;
    uint64_t high;
    size_t width = scan_number(*p, &low);
    if (width == 0) {
        return refuse(err, text, "a number of at most 18 digits is expected in the brackets");
    }
    *p += width;
    high = low;
    if (**p == '-') {
        size_t digits = scan_number(*p + 1, &high);
        if (digits == 0 || high < low) {
            return refuse(err, text, "a range goes from a number to one that is not below it");
        }
        *p += 1 + digits;
    }
    for (uint64_t n = low;; n++) {
        char name[HOST_BYTES_MAX + 1];
        if (snprintf(name, sizeof name, "%s%0*" PRIu64, made, (int)width, n) >= (int)sizeof name) {
            return refuse(err, text, "a name is over 255 bytes");
        }
        TRY(expand_rest(h, text, name, after, end, err));
        if (n == high) {
            return 0;
        }
    }
}

/* `made` is the name so far, rest..end what follows of it. */
static int expand_rest(struct hostlist *h, const char *text, const char *made, const char *rest,
                       const char *end, struct err *err)
{
    char name[HOST_BYTES_MAX + 1];
    const char *open = memchr(rest, '[', (size_t)(end - rest));
    const char *plain_end = open != NULL ? open : end;
    if (memchr(rest, ']', (size_t)(plain_end - rest)) != NULL) {
        return refuse(err, text, "']' without '['");
    }
    if (snprintf(name, sizeof name, "%s%.*s", made, (int)(plain_end - rest), rest) >=
        (int)sizeof name) {
        return refuse(err, text, "a name is over 255 bytes");
    }
    if (open == NULL) {
        if (h->count == HOSTLIST_MAX) {
            return refuse(err, text, "over 65536 names");
        }
        add(h, name);
        return 0;
    }
    const char *close = memchr(open, ']', (size_t)(end - open));
    const char *p = open;
    do {
        p++;
        TRY(expand_range(h, text, name, &p, close + 1, end, err));
    } while (*p == ',');
    return *p == ']' ? 0 : refuse(err, text, "',' or ']' is expected after a number");
}

/* The end of a name: a comma or blank outside brackets. NULL when a bracket is not closed. */
static const char *name_end(const char *p)
{
    bool inside = false;
    for (; *p != 0 && (inside || strchr(", \t\n", *p) == NULL); p++) {
        inside = *p == '[' || (inside && *p != ']');
    }
    return inside ? NULL : p;
}

int hostlist_expand(struct hostlist *h, const char *text, struct err *err)
{
    size_t before = h->count;
    int rc = 0;
    for (const char *p = text + strspn(text, ", \t\n"); rc == 0 && *p != 0;) {
        const char *end = name_end(p);
        rc = end != NULL ? expand_rest(h, text, "", p, end, err)
                         : refuse(err, text, "'[' without ']'");
        p = end != NULL ? end + strspn(end, ", \t\n") : p;
    }
    if (rc == 0 && h->count == before) {
        rc = refuse(err, text, "no name");
    }
    while (rc != 0 && h->count > before) {
        free(h->names[--h->count]);
    }
    return rc;
}

/* ---- compressing: a name is split around its last number */
struct part {
    const char *name;
    const char *suffix; /* points into name */
    size_t prefix_bytes, digits;
    uint64_t number;
};

static struct part split(const char *name)
{
    struct part p = {.name = name};
    size_t end = strlen(name);
    while (end > 0 && (name[end - 1] < '0' || name[end - 1] > '9')) {
        end--;
    }
    size_t start = end;
    while (start > 0 && name[start - 1] >= '0' && name[start - 1] <= '9' &&
           end - start < DIGITS_MAX) {
        start--;
    }
    p.digits = end - start;
    p.prefix_bytes = p.digits > 0 ? start : strlen(name);
    p.suffix = p.digits > 0 ? name + end : name + strlen(name);
    p.number = p.digits > 0 ? strtoull(name + start, NULL, 10) : 0;
    return p;
}

static int compare_frame(const struct part *a, const struct part *b)
{
    size_t shorter = a->prefix_bytes < b->prefix_bytes ? a->prefix_bytes : b->prefix_bytes;
    int order = memcmp(a->name, b->name, shorter);
    if (order == 0) {
        order = (a->prefix_bytes > b->prefix_bytes) - (a->prefix_bytes < b->prefix_bytes);
    }
    return order != 0 ? order : strcmp(a->suffix, b->suffix);
}

static int compare(const void *left, const void *right)
{
    const struct part *a = left;
    const struct part *b = right;
    int order = compare_frame(a, b);
    if (order == 0) {
        order = (a->digits > b->digits) - (a->digits < b->digits);
    }
    return order != 0 ? order : (a->number > b->number) - (a->number < b->number);
}

/* Whether b is what a range from `low` to a would hold next. */
static bool continues(const struct part *low, const struct part *a, const struct part *b)
{
    if (b->digits == 0 || compare_frame(a, b) != 0 || b->number != a->number + 1) {
        return false;
    }
    bool grows = b->digits == a->digits + 1 && low->name[low->prefix_bytes] != '0' &&
                 b->name[b->prefix_bytes] != '0';
    return b->digits == a->digits || grows;
}

static void put_range(const struct part *low, const struct part *high, struct buf *out)
{
    buf_append(out, low->name + low->prefix_bytes, low->digits);
    if (low != high) {
        buf_append(out, high->number == low->number + 1 ? "," : "-", 1);
        buf_append(out, high->name + high->prefix_bytes, high->digits);
    }
}

/* Names that differ only in the number: parts[0..count). */
static void put_group(const struct part *parts, size_t count, struct buf *out)
{
    bool bracket = count > 1;
    buf_append(out, parts[0].name, parts[0].prefix_bytes);
    buf_append_str(out, bracket ? "[" : "");
    for (size_t i = 0; i < count;) {
        size_t last = i;
        while (last + 1 < count && continues(&parts[i], &parts[last], &parts[last + 1])) {
            last++;
        }
        buf_append_str(out, i > 0 ? "," : "");
        put_range(&parts[i], &parts[last], out);
        i = last + 1;
    }
    buf_append_str(out, bracket ? "]" : "");
    buf_append_str(out, parts[0].suffix);
}

void hostlist_compress(const char *const *names, size_t count, struct buf *out)
{
    struct part *parts = mem_alloc_array(count, sizeof *parts);
    for (size_t i = 0; i < count; i++) {
        parts[i] = split(names[i]);
    }
    qsort(parts, count, sizeof *parts, compare);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || compare(&parts[unique - 1], &parts[i]) != 0) {
            parts[unique++] = parts[i];
        }
    }
    for (size_t i = 0; i < unique;) {
        size_t end = i + 1;
        while (end < unique && parts[end].digits > 0 &&
               compare_frame(&parts[i], &parts[end]) == 0) {
            end++;
        }
        buf_append_str(out, i > 0 ? "," : "");
        put_group(parts + i, end - i, out);
        i = end;
    }
    free(parts);
}
