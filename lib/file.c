#include "lib/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(const char *path, size_t bytes_max, struct buf *out, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    size_t start = out->len;
    int rc = 0;
    for (;;) {
        uint8_t *room = buf_reserve(out, 65536);
        ssize_t got = read(fd, room, 65536);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            rc = err_set_errno(err, "cannot read %s", path);
            break;
        }
        if (got == 0) {
            break;
        }
        out->len += (size_t)got;
        if (out->len - start > bytes_max) {
            rc = err_set(err, ERR_TOO_LARGE, "%s has more than %zu bytes", path, bytes_max);
            break;
        }
    }
    close(fd);
    if (rc != 0) {
        out->len = start;
    }
    return rc;
}

int file_write_all(int fd, const void *data, size_t len, struct err *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t put = write(fd, p, len);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return err_set_errno(err, "cannot write");
        }
        p += put;
        len -= (size_t)put;
    }
    return 0;
}

static void parent_of(const char *path, char *parent, size_t bytes)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        snprintf(parent, bytes, ".");
    } else if (slash == path) {
        snprintf(parent, bytes, "/");
    } else {
        snprintf(parent, bytes, "%.*s", (int)(slash - path), path);
    }
}

int file_fsync_dir(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, "cannot open folder %s", path);
    }
    int rc = fsync(fd) == 0 ? 0 : err_set_errno(err, "cannot fsync folder %s", path);
    close(fd);
    return rc;
}

int file_write_durable(const char *path, const void *data, size_t len, unsigned mode,
                       struct err *err)
{
    char tmp[PATH_MAX];
    char parent[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp) {
        return err_set(err, ERR_INVALID, "path too long: %s", path);
    }
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode);
    if (fd < 0) {
        return err_set_errno(err, "cannot create %s", tmp);
    }
    int rc = file_write_all(fd, data, len, err);
    if (rc != 0) {
        rc = err_wrap(err, "%s", tmp);
    } else if (fsync(fd) != 0) {
        rc = err_set_errno(err, "cannot fsync %s", tmp);
    }
    if (close(fd) != 0 && rc == 0) {
        rc = err_set_errno(err, "cannot close %s", tmp);
    }
    if (rc == 0 && rename(tmp, path) != 0) {
        rc = err_set_errno(err, "cannot rename %s to %s", tmp, path);
    }
    if (rc != 0) {
        unlink(tmp);
        return rc;
    }
    parent_of(path, parent, sizeof parent);
    return file_fsync_dir(parent, err);
}

int file_mkdirs(const char *path, unsigned mode, struct err *err)
{
    char part[PATH_MAX];
    char parent[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) {
        return err_set(err, ERR_INVALID, "path too long: %s", path);
    }
    size_t len = strlen(part);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != 0) {
            continue;
        }
        char kept = part[i];
        part[i] = 0;
        if (mkdir(part, (mode_t)mode) == 0) {
            parent_of(part, parent, sizeof parent);
            TRY(file_fsync_dir(parent, err));
        } else if (errno != EEXIST) {
            return err_set_errno(err, "cannot create folder %s", part);
        }
        part[i] = kept;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

int file_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return err_set_errno(err, "cannot remove %s", path);
    }
    return 0;
}
