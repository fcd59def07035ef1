#include "trainer/ckpt_find.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/mem.h"
#include "proto/manifest.h"

struct newest {
    uint64_t term, epoch, step;
    char *path; /* owned */
};

static bool is_checkpoint(const char *folder)
{
    char *manifest = mem_printf("%s/%s", folder, MANIFEST_FILE);
    bool there = access(manifest, F_OK) == 0;
    free(manifest);
    return there;
}

static bool is_newer(const struct newest *a, const struct newest *b)
{
    return a->term != b->term     ? a->term > b->term
           : a->epoch != b->epoch ? a->epoch > b->epoch
                                  : a->step > b->step;
}

/* Of one attempt: checkpoints are DIR/step-N. */
static void look_at_steps(const char *dir, uint64_t term, uint64_t epoch, struct newest *newest)
{
    DIR *steps = opendir(dir);
    if (steps == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(steps)) != NULL;) {
        struct newest one = {.term = term, .epoch = epoch};
        int end = 0;
        if (sscanf(entry->d_name, "step-%" SCNu64 "%n", &one.step, &end) != 1 ||
            entry->d_name[end] != 0) {
            continue;
        }
        one.path = mem_printf("%s/%s", dir, entry->d_name);
        if (is_checkpoint(one.path) && (newest->path == NULL || is_newer(&one, newest))) {
            free(newest->path);
            *newest = one;
        } else {
            free(one.path);
        }
    }
    closedir(steps);
}

/* "e0001" of a run that a person started, "t00001-e00001" of a coordinator's. */
static bool parse_attempt(const char *name, uint64_t *term, uint64_t *epoch)
{
    int end = 0;
    *term = 0;
    if (sscanf(name, "e%" SCNu64 "%n", epoch, &end) == 1) {
        return name[end] == 0;
    }
    return sscanf(name, "t%" SCNu64 "-e%" SCNu64 "%n", term, epoch, &end) == 2 && name[end] == 0;
}

int ckpt_find(const char *folder, char **found, struct err *err)
{
    struct newest newest = {0};
    *found = NULL;
    if (is_checkpoint(folder)) {
        *found = mem_strdup(folder);
        return 0;
    }
    DIR *attempts = opendir(folder);
    if (attempts == NULL) {
        return err_set_errno(err, "cannot open %s", folder);
    }
    for (const struct dirent *entry; (entry = readdir(attempts)) != NULL;) {
        uint64_t term;
        uint64_t epoch;
        if (parse_attempt(entry->d_name, &term, &epoch)) {
            char *dir = mem_printf("%s/%s", folder, entry->d_name);
            look_at_steps(dir, term, epoch, &newest);
            free(dir);
        }
    }
    closedir(attempts);
    look_at_steps(folder, 0, 0, &newest);
    if (newest.path == NULL) {
        return err_set(err, ERR_NOT_FOUND,
                       "%s has no %s and no committed checkpoint of a run below it", folder,
                       MANIFEST_FILE);
    }
    *found = newest.path;
    return 0;
}
