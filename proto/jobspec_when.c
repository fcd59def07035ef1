/* The job file's keys about when: arrays, dependencies, points in time. Each has a text form that
 * parses back, which the coordinator keeps in its tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/jobspec.h"
#include "proto/jobspec_fields.h"

#define INDEX_MAX 1000000000u
#define DIGITS    "0123456789"
#define DAY_MS    86400000ll
#define YEAR_MAX  9999

const char *const dependency_names[] = {"after", "afterany", "afterok", "afternotok", NULL};
const char *const placement_names[] = {"any", "zone", "rack", "leaf", NULL};

/* ---- time */

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year; /* years begin in March: the leap day is the last */
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t of_era = shifted - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = y + era * 400 + (*month <= 2);
}

void time_format(int64_t ms, char *text, size_t text_bytes)
{
    int64_t days = ms / DAY_MS - (ms % DAY_MS < 0);
    int64_t s = (ms - days * DAY_MS) / 1000;
    int64_t year, month, day;
    date_of(days, &year, &month, &day);
    snprintf(text, text_bytes,
             "%04" PRId64 "-%02" PRId64 "-%02" PRId64 "T%02" PRId64 ":%02" PRId64 ":%02" PRId64 "Z",
             year, month, day, s / 3600, s / 60 % 60, s % 60);
}

/* `count` digits; -1 when there are not so many. */
static int64_t take_digits(const char **p, size_t count)
{
    int64_t value = 0;
    for (size_t i = 0; i < count; i++, (*p)++) {
        if (**p < '0' || **p > '9') {
            return -1;
        }
        value = value * 10 + (**p - '0');
    }
    return value;
}

static bool take(const char **p, char c)
{
    bool there = **p == c;
    *p += there;
    return there;
}

/* hh:mm, hh:mm:ss -> ms of the day; -1: it is none. */
static int64_t take_clock(const char **p)
{
    int64_t h = take_digits(p, 2);
    if (h < 0 || h > 23 || !take(p, ':')) {
        return -1;
    }
    int64_t m = take_digits(p, 2), s = 0;
    if (m >= 0 && take(p, ':')) {
        s = take_digits(p, 2);
    }
    return m < 0 || m > 59 || s < 0 || s > 59 ? -1 : ((h * 60 + m) * 60 + s) * 1000;
}

/* Z, +01:00 or nothing -> what UTC is behind; INT64_MIN: it is none. */
static int64_t take_zone(const char **p)
{
    if (**p == 0 || take(p, 'Z')) {
        return 0;
    }
    int64_t sign = **p == '-' ? -1 : 1;
    if (!take(p, '+') && !take(p, '-')) {
        return INT64_MIN;
    }
    int64_t ms = take_clock(p);
    return ms < 0 ? INT64_MIN : sign * ms;
}

static bool scan_time(const char *p, int64_t *ms)
{
    int64_t year = take_digits(&p, 4);
    bool dash = take(&p, '-');
    int64_t month = take_digits(&p, 2);
    dash = take(&p, '-') && dash;
    int64_t day = take_digits(&p, 2);
    if (year < 1970 || year > YEAR_MAX || !dash || month < 1 || month > 12 || day < 1) {
        return false;
    }
    int64_t days = days_of(year, month, day), same[3];
    date_of(days, &same[0], &same[1], &same[2]);
    if (same[1] != month || same[2] != day) {
        return false; /* February 30 */
    }
    int64_t clock = 0, zone = 0;
    if (take(&p, 'T') || take(&p, ' ')) {
        clock = take_clock(&p);
        zone = clock < 0 ? INT64_MIN : take_zone(&p);
    }
    if (clock < 0 || zone == INT64_MIN || *p != 0) {
        return false;
    }
    *ms = days * DAY_MS + clock - zone;
    return true;
}

int time_parse(const char *text, int64_t *ms, struct err *err)
{
    if (scan_time(text, ms)) {
        return 0;
    }
    return err_set(err, ERR_INVALID,
                   "'%.60s' is not a time (allowed: such as 2026-01-31, 2026-01-31T06:00 or "
                   "2026-01-31T06:00:00+01:00; without a zone it is UTC)",
                   text);
}

int jobspec_read_time(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec_time *time = place;
    struct err why;
    *time = (struct jobspec_time){0};
    if (item->kind == YAML_ITEM_SCALAR && scan_time(item->text, &time->at_ms)) {
        return 0;
    }
    time->at_ms = 0;
    if (item->kind != YAML_ITEM_SCALAR ||
        duration_parse(item->text[0] == '+' ? item->text + 1 : item->text, &time->in_ms, &why) !=
            0 ||
        time->in_ms == 0) {
        return yaml_refuse(item, err,
                           "neither a time nor a duration from the submit on (allowed: such as "
                           "2026-01-31T06:00:00Z, or 12h)");
    }
    return 0;
}

int jobspec_check_times(const struct jobspec *spec, const struct yaml_item *root, struct err *err)
{
    const struct jobspec_time *begin = &spec->not_before, *end = &spec->deadline;
    bool comparable = begin->at_ms != 0 && end->at_ms != 0;
    bool too_late = comparable && begin->at_ms >= end->at_ms;
    too_late |= begin->in_ms != 0 && end->in_ms != 0 && begin->in_ms >= end->in_ms;
    if (too_late) {
        return yaml_refuse(yaml_get(root, "deadline"), err, "is not after not_before");
    }
    if (spec->spares > 0 && spec->gpus_per_node == 0) {
        return yaml_refuse(yaml_get(root, "spares"), err,
                           "needs accelerators (allowed with gpus_per_node: 0: none)");
    }
    return 0;
}

int jobspec_read_preemptible(const struct yaml_item *item, void *place, struct err *err)
{
    bool value;
    TRY(yaml_to_bool(item, &value, err));
    ((struct jobspec *)place)->preemptible = value ? BY_POLICY_YES : BY_POLICY_NO;
    return 0;
}

/* ---- arrays */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* A number up to INDEX_MAX; false when there is none. */
static bool take_number(const char **p, uint32_t *value)
{
    size_t len = strspn(*p, DIGITS);
    if (len == 0 || len > 10) {
        return false;
    }
    uint64_t number = strtoull(*p, NULL, 10);
    *p += len;
    *value = (uint32_t)number;
    return number <= INDEX_MAX;
}

/* N, N-M, N-M:STEP. */
static bool take_range(const char **p, uint32_t *first, uint32_t *last, uint32_t *step)
{
    *step = 1;
    if (!take_number(p, first)) {
        return false;
    }
    *last = *first;
    if (take(p, '-')) {
        if (!take_number(p, last) || *last < *first) {
            return false;
        }
        if (take(p, ':')) {
            return take_number(p, step) && *step > 0;
        }
    }
    return true;
}

static bool scan_array(const char *p, uint32_t *indices, size_t *count, uint32_t *limit)
{
    *count = 0;
    *limit = 0;
    do {
        uint32_t first, last, step;
        if (!take_range(&p, &first, &last, &step) ||
            (last - first) / step + 1 > JOBSPEC_ARRAY_MAX - *count) {
            return false;
        }
        for (uint32_t i = 0; i <= (last - first) / step; i++) {
            indices[(*count)++] = first + i * step;
        }
    } while (take(&p, ','));
    if (take(&p, '%') && (!take_number(&p, limit) || *limit == 0)) {
        return false;
    }
    return *p == 0;
}

int array_parse(const char *text, uint32_t **indices, size_t *count, uint32_t *limit,
                struct err *err)
{
    uint32_t *list = mem_alloc_array(JOBSPEC_ARRAY_MAX, sizeof *list);
    if (!scan_array(text, list, count, limit)) {
        free(list);
        return err_set(err, ERR_INVALID,
                       "'%.60s' is not an array of at most %u jobs (allowed: such as 0-99, "
                       "1,5,7-11, 0-100:10, and %%4 at the end to run 4 at a time)",
                       text, JOBSPEC_ARRAY_MAX);
    }
    qsort(list, *count, sizeof *list, compare_u32);
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        if (kept == 0 || list[kept - 1] != list[i]) {
            list[kept++] = list[i];
        }
    }
    *count = kept;
    *indices = mem_alloc_array(kept, sizeof *list);
    memcpy(*indices, list, kept * sizeof *list);
    free(list);
    return 0;
}

char *array_format(const uint32_t *indices, size_t count, uint32_t limit)
{
    struct buf out = {0};
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        uint32_t step = end < count ? indices[end] - indices[i] : 1;
        while (end < count && indices[end] - indices[end - 1] == step) {
            end++;
        }
        if (end - i < 3) {
            end = i + 1;
        }
        buf_printf(&out, "%s%" PRIu32, i > 0 ? "," : "", indices[i]);
        if (end - i > 1) {
            buf_printf(&out, "-%" PRIu32, indices[end - 1]);
            if (step > 1) {
                buf_printf(&out, ":%" PRIu32, step);
            }
        }
        i = end;
    }
    if (limit > 0) {
        buf_printf(&out, "%%%" PRIu32, limit);
    }
    buf_cstr(&out);
    return (char *)out.data;
}

int jobspec_read_array(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec *spec = place;
    struct err why;
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err, "indices are expected (allowed: such as 0-99 or 1,3,5%%2)");
    }
    if (array_parse(item->text, &spec->array, &spec->array_count, &spec->array_limit, &why) != 0) {
        return yaml_refuse(item, err, "%s", why.text);
    }
    return 0;
}

/* ---- dependencies */

static int compare_dependency(const void *a, const void *b)
{
    const struct dependency *x = a, *y = b;
    if (x->job != y->job) {
        return x->job < y->job ? -1 : 1;
    }
    return (x->kind > y->kind) - (x->kind < y->kind);
}

/* In order, each once. */
static void settle(struct dependency *list, size_t *count)
{
    size_t kept = 0;
    qsort(list, *count, sizeof *list, compare_dependency);
    for (size_t i = 0; i < *count; i++) {
        if (kept == 0 || compare_dependency(&list[kept - 1], &list[i]) != 0) {
            list[kept++] = list[i];
        }
    }
    *count = kept;
}

static int add_dependency(struct jobspec *spec, enum dependency_kind kind,
                          const struct yaml_item *item, struct err *err)
{
    uint64_t job;
    TRY(yaml_to_u64(item, 1, INT64_MAX, &job, err));
    if (spec->dependency_count == JOBSPEC_DEPENDENCIES_MAX) {
        return yaml_refuse(item, err, "too many jobs (allowed: %u in all)",
                           JOBSPEC_DEPENDENCIES_MAX);
    }
    spec->dependencies[spec->dependency_count++] = (struct dependency){kind, job};
    return 0;
}

static int find_name(const char *const *names, const char *name)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

int jobspec_read_dependencies(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec *spec = place;
    if (item->kind != YAML_ITEM_MAP) {
        return yaml_refuse(item, err,
                           "a map is expected (allowed: {after: [..], afterany: [..], afterok: "
                           "[..], afternotok: [..], singleton: true})");
    }
    free(spec->dependencies);
    spec->dependencies = mem_alloc_array(JOBSPEC_DEPENDENCIES_MAX, sizeof *spec->dependencies);
    spec->dependency_count = 0;
    for (size_t i = 0; i < item->count; i++) {
        const struct yaml_item *entry = item->items[i];
        int kind = find_name(dependency_names, entry->key);
        if (strcmp(entry->key, "singleton") == 0) {
            TRY(yaml_to_bool(entry, &spec->singleton, err));
        } else if (kind < 0) {
            return yaml_refuse(entry, err,
                               "unknown key (allowed: after, afterany, afterok, afternotok, "
                               "singleton)");
        } else if (entry->kind == YAML_ITEM_LIST) {
            for (size_t j = 0; j < entry->count; j++) {
                TRY(add_dependency(spec, (enum dependency_kind)kind, entry->items[j], err));
            }
        } else {
            TRY(add_dependency(spec, (enum dependency_kind)kind, entry, err));
        }
    }
    settle(spec->dependencies, &spec->dependency_count);
    return 0;
}

void jobspec_depend(struct jobspec *spec, enum dependency_kind kind, uint64_t job)
{
    size_t count = spec->dependency_count;
    for (size_t i = 0; i < count; i++) {
        if (spec->dependencies[i].job == job) {
            return;
        }
    }
    struct dependency *all = mem_alloc_array(count + 1, sizeof *all);
    for (size_t i = 0; i < count; i++) {
        all[i] = spec->dependencies[i];
    }
    all[count] = (struct dependency){kind, job};
    free(spec->dependencies);
    spec->dependencies = all;
    spec->dependency_count = count + 1;
    settle(all, &spec->dependency_count);
}

char *dependencies_format(const struct dependency *list, size_t count, bool singleton)
{
    if (count == 0 && !singleton) {
        return NULL;
    }
    struct buf out = {0};
    for (size_t i = 0; i < count; i++) {
        buf_printf(&out, "%s%s:%" PRIu64, i > 0 ? " " : "", dependency_names[list[i].kind],
                   list[i].job);
    }
    if (singleton) {
        buf_printf(&out, "%ssingleton", count > 0 ? " " : "");
    }
    buf_cstr(&out);
    return (char *)out.data;
}

int dependencies_parse(const char *text, struct dependency **list, size_t *count, bool *singleton,
                       struct err *err)
{
    size_t words = 1;
    for (const char *p = text; p != NULL && *p != 0; p++) {
        words += *p == ' ';
    }
    *list = mem_alloc_array(words, sizeof **list);
    *count = 0;
    *singleton = false;
    for (const char *p = text; p != NULL && *p != 0;) {
        size_t len = strcspn(p, " ");
        size_t name_len = strcspn(p, ": ");
        char name[16] = "";
        if (name_len < sizeof name) {
            memcpy(name, p, name_len);
        }
        int kind = find_name(dependency_names, name);
        uint64_t job = name_len < len ? strtoull(p + name_len + 1, NULL, 10) : 0;
        if (strcmp(name, "singleton") == 0) {
            *singleton = true;
        } else if (kind < 0 || job == 0) {
            free(*list);
            *list = NULL;
            *count = 0;
            return err_set(err, ERR_INVALID, "'%.60s' is not a list of dependencies", text);
        } else {
            (*list)[(*count)++] = (struct dependency){(enum dependency_kind)kind, job};
        }
        p += len + strspn(p + len, " ");
    }
    return 0;
}
