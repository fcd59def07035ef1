#include "worker/ckpt_order.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "proto/manifest.h"

/* Skips `prefix` and at least digits_min digits; NULL when they are not there. */
static const char *skip_number(const char *p, const char *prefix, size_t digits_min)
{
    size_t len = strlen(prefix);
    if (p == NULL || strncmp(p, prefix, len) != 0) {
        return NULL;
    }
    size_t digits = strspn(p + len, "0123456789");
    return digits >= digits_min ? p + len + digits : NULL;
}

static bool has_dot_dot(const char *path)
{
    for (const char *p = strstr(path, ".."); p != NULL; p = strstr(p + 1, "..")) {
        if ((p == path || p[-1] == '/') && (p[2] == 0 || p[2] == '/')) {
            return true;
        }
    }
    return false;
}

int ckpt_check_path(const char *path, struct err *err)
{
    const char *step = strrchr(path, '/');
    const char *epoch = step;
    while (epoch != NULL && epoch > path && epoch[-1] != '/') {
        epoch--;
    }
    const char *after_step = step != NULL ? skip_number(step, "/step-", 1) : NULL;
    const char *after_epoch = skip_number(skip_number(epoch, "t", 5), "-e", 5);
    if (path[0] != '/' || has_dot_dot(path) || after_step == NULL || *after_step != 0 ||
        after_epoch != step || strlen(path) >= PATH_MAX - sizeof MANIFEST_FILE) {
        return err_set(err, ERR_INVALID,
                       "%s is not a checkpoint folder (.../t00003-e00007/step-100): not removed",
                       path);
    }
    return 0;
}

/* The thread's own file system identity; the others are not touched. False: not a folder. */
static bool become_owner(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return false;
    }
    if (geteuid() == 0) {
        setfsgid(st.st_gid);
        setfsuid(st.st_uid);
    }
    return true;
}

static void become_self(void)
{
    setfsuid(geteuid());
    setfsgid(getegid());
}

int ckpt_publish(const char *path, const char *manifest, struct err *err)
{
    if (!become_owner(path)) {
        return err_set(err, ERR_NOT_FOUND,
                       "no checkpoint folder %s (is the shared storage mounted on this node?)",
                       path);
    }
    int rc = manifest_publish(path, manifest, strlen(manifest), err);
    become_self();
    return rc;
}

static int remove_all(const char *path, struct err *err)
{
    char manifest[PATH_MAX];
    snprintf(manifest, sizeof manifest, "%s/" MANIFEST_FILE, path);
    if (unlink(manifest) == 0) {
        TRY(file_fsync_dir(path, err));
    } else if (errno != ENOENT) {
        return err_set_errno(err, "cannot remove %s", manifest);
    }
    return file_remove_tree(path, err);
}

int ckpt_remove(const char *path, struct err *err)
{
    struct stat st;
    TRY(ckpt_check_path(path, err));
    if (lstat(path, &st) != 0 && errno == ENOENT) {
        return 0;
    }
    if (!become_owner(path)) {
        return err_set(err, ERR_INVALID, "%s is not a folder: not removed", path);
    }
    int rc = remove_all(path, err);
    become_self();
    return rc;
}
