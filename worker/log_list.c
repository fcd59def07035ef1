#include "worker/log_list.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/mem.h"

#define OFFSET_DIGITS 20

static int by_start(const void *a, const void *b)
{
    const struct log_part *left = a;
    const struct log_part *right = b;
    return (left->start > right->start) - (left->start < right->start);
}

/* "rank-0.out.00000000000000001234" of "rank-0.out" -> 1234. */
static int offset_of(const char *entry, const char *name, uint64_t *offset)
{
    size_t len = strlen(name);
    if (strncmp(entry, name, len) != 0 || entry[len] != '.' ||
        strspn(entry + len + 1, "0123456789") != OFFSET_DIGITS ||
        entry[len + 1 + OFFSET_DIGITS] != 0) {
        return -1;
    }
    *offset = strtoull(entry + len + 1, NULL, 10);
    return 0;
}

int log_list_read(struct log_list *list, const char *path)
{
    *list = (struct log_list){0};
    const char *name = strrchr(path, '/') + 1;
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%.*s", (int)(name - path), path);
    DIR *d = opendir(dir);
    if (d == NULL) {
        return -1;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        struct log_part part = {0};
        struct stat st;
        if (offset_of(e->d_name, name, &part.start) != 0) {
            continue;
        }
        part.path = mem_printf("%s%s", dir, e->d_name);
        if (stat(part.path, &st) != 0) {
            free(part.path); /* just now removed */
            continue;
        }
        part.bytes = (uint64_t)st.st_size;
        void *parts = list->parts;
        mem_grow(&parts, &list->capacity, list->count + 1, sizeof part);
        list->parts = parts;
        list->parts[list->count++] = part;
    }
    closedir(d);
    if (list->count > 0) {
        qsort(list->parts, list->count, sizeof *list->parts, by_start);
        const struct log_part *last = &list->parts[list->count - 1];
        list->current_start = last->start + last->bytes;
    }
    return 0;
}

void log_list_fini(struct log_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->parts[i].path);
    }
    free(list->parts);
    *list = (struct log_list){0};
}
