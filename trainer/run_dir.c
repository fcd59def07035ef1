#include "trainer/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/attempt_log.h"

static bool has_manifest(const char *path)
{
    char manifest[PATH_MAX + 64];
    snprintf(manifest, sizeof manifest, "%s/%s", path, MANIFEST_FILE);
    return access(manifest, F_OK) == 0;
}

static void add(struct run_dir *d, uint64_t epoch, uint64_t step, const char *path)
{
    void *items = d->ckpts;
    mem_grow(&items, &d->capacity, d->count + 1, sizeof *d->ckpts);
    d->ckpts = items;
    d->ckpts[d->count++] = (struct run_ckpt){epoch, step, mem_strdup(path)};
}

static int oldest_first(const void *a, const void *b)
{
    const struct run_ckpt *x = a;
    const struct run_ckpt *y = b;
    if (x->epoch != y->epoch) {
        return x->epoch < y->epoch ? -1 : 1;
    }
    return x->step < y->step ? -1 : x->step > y->step;
}

/* Calls found for each entry of the folder that is the prefix and a number. */
static void each_numbered(const char *folder, const char *prefix,
                          void (*found)(void *, uint64_t, const char *), void *ctx)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[PATH_MAX];
        char *end = NULL;
        size_t skip = strlen(prefix);
        if (strncmp(entry->d_name, prefix, skip) != 0) {
            continue;
        }
        uint64_t number = strtoull(entry->d_name + skip, &end, 10);
        if (end == entry->d_name + skip || *end != 0 ||
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) {
            continue;
        }
        found(ctx, number, path);
    }
    closedir(dir);
}

struct scan {
    struct run_dir *d;
    uint64_t epoch;
};

static void found_step(void *ctx, uint64_t step, const char *path)
{
    struct scan *scan = ctx;
    if (has_manifest(path)) {
        add(scan->d, scan->epoch, step, path);
    } else { /* of a start that was killed */
        file_remove_tree(path, NULL);
    }
}

static void found_epoch(void *ctx, uint64_t epoch, const char *path)
{
    struct run_dir *d = ctx;
    struct scan scan = {d, epoch};
    d->epoch = epoch >= d->epoch ? epoch + 1 : d->epoch;
    each_numbered(path, "step-", found_step, &scan);
}

static int take_lock(const char *folder, int *fd, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", folder);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) {
        return err_set_errno(err, "cannot create %s", path);
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK
                   ? err_set(err, ERR_CONFLICT,
                             "another run works in %s (give this one another --out or name)",
                             folder)
                   : err_set_errno(err, "cannot lock %s", path);
    }
    return 0;
}

static int make_folder(const char *path, char **absolute, struct err *err)
{
    char real[PATH_MAX];
    TRY(file_mkdirs(path, 0777, err));
    if (realpath(path, real) == NULL || strlen(real) > PATH_MAX - 256) {
        return err_set_errno(err, "cannot use the folder %s", path);
    }
    *absolute = mem_strdup(real);
    return 0;
}

int run_dir_open(struct run_dir *d, const char *path, const char *ckpt_root, struct err *err)
{
    char *root = NULL;
    int rc;
    *d = (struct run_dir){.lock_fd = -1, .ckpt_lock_fd = -1, .epoch = 1};
    TRY(make_folder(path, &d->path, err));
    TRY_GOTO(take_lock(d->path, &d->lock_fd, err), out);
    d->epoch = attempt_log_next(d->path); /* one that saved nothing has left no folder */
    if (ckpt_root != NULL) {
        TRY_GOTO(make_folder(ckpt_root, &root, err), out);
        TRY_GOTO(take_lock(root, &d->ckpt_lock_fd, err), out);
    } else {
        root = mem_printf("%s/checkpoints", d->path);
    }
    each_numbered(root, "e", found_epoch, d);
    if (d->count > 0) {
        qsort(d->ckpts, d->count, sizeof *d->ckpts, oldest_first);
    }
    d->ckpt_dir = mem_printf("%s/e%04" PRIu64, root, d->epoch);
out:
    free(root);
    if (rc != 0) {
        run_dir_close(d);
    }
    return rc;
}

static void remove_uncommitted(void *ctx, uint64_t step, const char *path)
{
    (void)ctx, (void)step;
    if (!has_manifest(path)) {
        file_remove_tree(path, NULL);
    }
}

void run_dir_close(struct run_dir *d)
{
    if (d->path == NULL) {
        return;
    }
    if (d->ckpt_dir != NULL) {
        each_numbered(d->ckpt_dir, "step-", remove_uncommitted, NULL);
        rmdir(d->ckpt_dir); /* only when empty */
    }
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    if (d->ckpt_lock_fd >= 0) {
        close(d->ckpt_lock_fd);
    }
    for (size_t i = 0; i < d->count; i++) {
        free(d->ckpts[i].path);
    }
    free(d->ckpts);
    free(d->ckpt_dir);
    free(d->path);
    *d = (struct run_dir){.lock_fd = -1, .ckpt_lock_fd = -1};
}

const char *run_dir_newest(const struct run_dir *d)
{
    for (size_t i = d->count; i-- > 0;) {
        struct manifest m = {0};
        struct err why = {0};
        int rc = manifest_read(&m, d->ckpts[i].path, &why);
        if (rc == 0) {
            rc = manifest_verify(&m, d->ckpts[i].path, 0, &why);
        }
        manifest_fini(&m);
        if (rc == 0) {
            return d->ckpts[i].path;
        }
        log_warn("skipping the checkpoint of step %" PRIu64 ": %s", d->ckpts[i].step, why.text);
    }
    return NULL;
}

static void forget(struct run_dir *d, size_t i)
{
    struct err why = {0};
    if (file_remove_tree(d->ckpts[i].path, &why) != 0) {
        log_warn("%s", why.text);
    }
    free(d->ckpts[i].path);
    memmove(d->ckpts + i, d->ckpts + i + 1, (--d->count - i) * sizeof *d->ckpts);
}

/* The oldest on the way to it that lies in one stretch of `rollback` steps stands for it. */
static bool stands_for_its_stretch(const struct run_dir *d, size_t i, uint64_t rollback)
{
    uint64_t step = d->ckpts[i].step;
    while (i-- > 0) {
        if (d->ckpts[i].step < step) { /* else the run went back behind it since */
            return d->ckpts[i].step / rollback != step / rollback;
        }
    }
    return true;
}

/* As the coordinator does (daemon/core/retention.c): beyond the newest `keep`, one a stretch of
 * `rollback` steps, up to one from which the guard could go back twice. */
void run_dir_committed(struct run_dir *d, uint64_t step, uint32_t keep, uint64_t rollback)
{
    char path[PATH_MAX];
    uint64_t lowest = UINT64_MAX; /* of the later ones */
    size_t kept = 0;
    snprintf(path, sizeof path, "%s/step-%010" PRIu64, d->ckpt_dir, step);
    add(d, d->epoch, step, path);
    bool reaches_back = rollback == 0;
    for (size_t i = d->count; i-- > 0;) {
        uint64_t here = d->ckpts[i].step;
        bool on_the_way = here < lowest;
        bool spare = reaches_back || !on_the_way || !stands_for_its_stretch(d, i, rollback);
        if (++kept > keep && spare) {
            forget(d, i);
            continue;
        }
        if (on_the_way) {
            lowest = here;
            reaches_back = reaches_back || (step >= here && (step - here) / 2 >= rollback);
        }
    }
}
