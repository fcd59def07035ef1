#include "trainer/reshard.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

void reshard_name(char out[RESHARD_NAME_BYTES], const char *name, uint64_t first, uint64_t count,
                  bool whole)
{
    if (whole) {
        snprintf(out, RESHARD_NAME_BYTES, "%s", name);
    } else {
        snprintf(out, RESHARD_NAME_BYTES, "%s[%llu:%llu]", name, (unsigned long long)first,
                 (unsigned long long)(first + count));
    }
}

/* A number without sign, blanks or overflow; *end is behind it. */
static bool read_number(const char *text, char **end, uint64_t *value)
{
    errno = 0;
    *value = isdigit((unsigned char)text[0]) ? strtoull(text, end, 10) : 0;
    return isdigit((unsigned char)text[0]) && errno == 0;
}

int reshard_parse(struct reshard_run *run, const char *saved_name, uint64_t elements,
                  struct err *err)
{
    const char *bracket = strchr(saved_name, '[');
    size_t length = bracket != NULL ? (size_t)(bracket - saved_name) : strlen(saved_name);
    *run = (struct reshard_run){.count = elements, .whole = bracket == NULL};
    if (length == 0 || length >= sizeof run->name) {
        return err_set(err, ERR_CORRUPT, "a tensor's name is empty or too long: %.300s",
                       saved_name);
    }
    memcpy(run->name, saved_name, length);
    if (bracket == NULL) {
        return 0;
    }
    uint64_t end = 0;
    char *rest = NULL;
    bool good = read_number(bracket + 1, &rest, &run->first) && *rest == ':' &&
                read_number(rest + 1, &rest, &end) && strcmp(rest, "]") == 0;
    if (!good || end <= run->first || end - run->first != elements) {
        return err_set(err, ERR_CORRUPT,
                       "tensor %.300s: the range in its name is not of its %llu elements",
                       saved_name, (unsigned long long)elements);
    }
    return 0;
}

void reshard_map_fini(struct reshard_map *map)
{
    free(map->run);
    *map = (struct reshard_map){0};
}

void reshard_map_add(struct reshard_map *map, const struct reshard_run *run)
{
    mem_grow((void **)&map->run, &map->capacity, map->count + 1, sizeof *map->run);
    map->run[map->count++] = *run;
}

static int by_place(const void *a, const void *b)
{
    const struct reshard_run *x = a;
    const struct reshard_run *y = b;
    int names = strcmp(x->name, y->name);
    if (names != 0) {
        return names;
    }
    return x->first < y->first ? -1 : x->first > y->first;
}

int reshard_map_sort(struct reshard_map *map, const struct reshard_run **before,
                     const struct reshard_run **again)
{
    if (map->count > 0) {
        qsort(map->run, map->count, sizeof *map->run, by_place);
    }
    for (size_t i = 1; i < map->count; i++) {
        const struct reshard_run *a = &map->run[i - 1];
        const struct reshard_run *b = &map->run[i];
        if (strcmp(a->name, b->name) == 0 && b->first < a->first + a->count) {
            *before = a;
            *again = b;
            return ERR_CORRUPT;
        }
    }
    return 0;
}

/* The first run of that name which ends behind element `first`, or where it would be. */
static size_t lower_bound(const struct reshard_map *map, const char *name, uint64_t first)
{
    size_t low = 0, high = map->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct reshard_run *r = &map->run[middle];
        int names = strcmp(r->name, name);
        if (names < 0 || (names == 0 && r->first + r->count <= first)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct reshard_run *reshard_map_first(const struct reshard_map *map, const char *name)
{
    size_t i = lower_bound(map, name, 0);
    return i < map->count && strcmp(map->run[i].name, name) == 0 ? &map->run[i] : NULL;
}

int reshard_map_find(const struct reshard_map *map, const char *name, uint64_t first,
                     uint64_t count, struct reshard_copy **copies, size_t *copy_count,
                     struct err *err)
{
    size_t capacity = 0;
    uint64_t at = first, end = first + count;
    *copies = NULL;
    *copy_count = 0;
    for (size_t i = lower_bound(map, name, first); at < end; i++) {
        const struct reshard_run *r = i < map->count ? &map->run[i] : NULL;
        if (r == NULL || strcmp(r->name, name) != 0 || r->first > at) {
            free(*copies);
            *copies = NULL;
            *copy_count = 0;
            return err_set(err, ERR_CORRUPT,
                           "tensor %s: elements %llu and following are in none of "
                           "the shards",
                           name, (unsigned long long)at);
        }
        uint64_t stop = r->first + r->count < end ? r->first + r->count : end;
        mem_grow((void **)copies, &capacity, *copy_count + 1, sizeof **copies);
        struct reshard_copy copy = {r, at - r->first, at - first, stop - at};
#ifdef MUTANT_reshard_offset
        copy.from = 0;
#endif
        (*copies)[(*copy_count)++] = copy;
        at = stop;
    }
    return 0;
}
