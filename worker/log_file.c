#include "worker/log_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"
#include "worker/log_list.h"

void log_file_name(char name[LOG_NAME_BYTES], uint32_t rank, int is_stderr)
{
    snprintf(name, LOG_NAME_BYTES, "rank-%" PRIu32 ".%s", rank, is_stderr ? "err" : "out");
}

void log_file_init(struct log_file *f, const char *dir, const char *name, uint64_t bytes_max,
                   uint32_t files_kept)
{
    *f = (struct log_file){
        .path = mem_printf("%s/%s", dir, name),
        .fd = -1,
        .bytes_max = bytes_max,
        .files_kept = files_kept > 0 ? files_kept : 1,
    };
}

void log_file_fini(struct log_file *f)
{
    if (f->path != NULL && f->fd >= 0) {
        close(f->fd);
    }
    free(f->path);
    *f = (struct log_file){.fd = -1};
}

static int ensure_open(struct log_file *f)
{
    if (f->fd < 0) {
        f->fd = open(f->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    return f->fd;
}

static void drop_oldest(const struct log_file *f)
{
    struct log_list list;
    if (log_list_read(&list, f->path) != 0) {
        return;
    }
    for (size_t i = 0; i + f->files_kept < list.count; i++) {
        unlink(list.parts[i].path);
    }
    log_list_fini(&list);
}

static void rotate(struct log_file *f)
{
    char old[PATH_MAX];
    snprintf(old, sizeof old, "%s.%020" PRIu64, f->path, f->start);
    if (rename(f->path, old) != 0) {
        return; /* the file grows on; tried again with the next write */
    }
    close(f->fd);
    f->fd = -1;
    f->start += f->bytes;
    f->bytes = 0;
    drop_oldest(f);
}

/* What is on disk when the disk fills up in the middle of a write is part of the stream. */
static size_t put(struct log_file *f, const char *data, size_t len)
{
    size_t done = 0;
    while (done < len && ensure_open(f) >= 0) {
        ssize_t n = write(f->fd, data + done, len - done);
        if (n < 0 && errno != EINTR) {
            break;
        }
        if (n > 0) {
            done += (size_t)n;
            f->bytes += (uint64_t)n;
        }
    }
    return done;
}

void log_file_write(struct log_file *f, const void *data, size_t len)
{
    if (f->lost_bytes > 0) {
        char note[128];
        int n = snprintf(note, sizeof note,
                         "\n[%" PRIu64 " bytes of output lost: they could not be written]\n",
                         f->lost_bytes);
        if (put(f, note, (size_t)n) < (size_t)n) {
            f->lost_bytes += len;
            return;
        }
        f->lost_bytes = 0;
    }
    f->lost_bytes += len - put(f, data, len);
    if (f->bytes >= f->bytes_max) {
        rotate(f);
    }
}
