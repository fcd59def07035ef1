/* A folder of its own for a group of tests: pass make_folder and remove_folder to
 * cmocka_run_group_tests. */
#ifndef TESTS_UNIT_WORKER_FOLDER_H
#define TESTS_UNIT_WORKER_FOLDER_H

#include <stdio.h>
#include <stdlib.h>

#include "lib/file.h"

static char folder[64];

static inline int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ds-worker-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder, NULL);
}

/* Valid until the next call. */
static inline char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

#endif
