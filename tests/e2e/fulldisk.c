/* Preloaded into a program under test where the tests may not mount a small file system: while the
 * file $FULL_DISK_FLAG exists, writing below $FULL_DISK_FOLDER fails as on a full disk. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd)
{
    const char *folder = getenv("FULL_DISK_FOLDER");
    const char *flag = getenv("FULL_DISK_FLAG");
    if (folder == NULL || flag == NULL || access(flag, F_OK) != 0) {
        return 0;
    }
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len <= 0) {
        return 0;
    }
    path[len] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

#define INTERPOSE(ret, name, params, args)                                                         \
    ret name params;                                                                               \
    ret name params                                                                                \
    {                                                                                              \
        static ret(*next) params;                                                                  \
        if (next == NULL) {                                                                        \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                             \
        }                                                                                          \
        if (is_full(fd)) {                                                                         \
            errno = ENOSPC;                                                                        \
            return -1;                                                                             \
        }                                                                                          \
        return next args;                                                                          \
    }

INTERPOSE(ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len))
INTERPOSE(ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at))
INTERPOSE(ssize_t, pwrite64, (int fd, const void *data, size_t len, off64_t at),
          (fd, data, len, at))
INTERPOSE(ssize_t, writev, (int fd, const struct iovec *part, int count), (fd, part, count))
