#include "trainer/inspect_flight.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/flight.h"

#define LAST_CALLS 8

static int find_files(const char *folder, glob_t *found)
{
    char *pattern = mem_printf("%s/flight-*.bin", folder);
    int rc = glob(pattern, 0, NULL, found);
    free(pattern);
    return rc;
}

bool inspect_is_flight(const char *path, bool is_folder)
{
    glob_t found;
    if (is_folder) {
        bool any = find_files(path, &found) == 0;
        if (any) {
            globfree(&found);
        }
        return any;
    }
    size_t len = strlen(path);
    return len > 4 && strcmp(path + len - 4, ".bin") == 0;
}

static int by_rank(const void *a, const void *b)
{
    const struct flight_file *const *x = a, *const *y = b;
    return ((*x)->rank > (*y)->rank) - ((*x)->rank < (*y)->rank);
}

static void print_folder(struct flight_file **files, size_t count, struct buf *out)
{
    const struct flight_file *const *list = (const struct flight_file *const *)files;
    if (count < files[0]->world) {
        buf_printf(out, "recorders of %zu of %u ranks are here\n", count, files[0]->world);
    }
    if (!flight_compare(list, count, out)) {
        buf_append_str(out, "the ranks agree: nobody waits for a call that another never began\n");
    }
    for (size_t i = 0; i < count; i++) {
        buf_append_str(out, "\n");
        flight_table(files[i], LAST_CALLS, out);
    }
}

int inspect_flight(const char *path, bool is_folder, struct err *err)
{
    glob_t found = {0};
    char *one[] = {(char *)path};
    char **paths = one;
    size_t count = 1, opened = 0;
    struct buf out = {0};
    int rc = 0;
    if (is_folder && find_files(path, &found) == 0) {
        paths = found.gl_pathv;
        count = found.gl_pathc;
    }
    struct flight_file **files = mem_alloc_array(count, sizeof(struct flight_file *));
    while (opened < count && rc == 0) {
        rc = flight_read(&files[opened], paths[opened], err);
        opened += rc == 0;
    }
    if (rc == 0 && is_folder) {
        qsort(files, count, sizeof(struct flight_file *), by_rank);
        print_folder(files, count, &out);
    } else if (rc == 0) {
        flight_table(files[0], FLIGHT_ENTRIES, &out);
    }
    fwrite(out.data, 1, out.len, stdout);
    buf_fini(&out);
    for (size_t i = 0; i < opened; i++) {
        free(files[i]);
    }
    free(files);
    globfree(&found);
    return rc;
}
