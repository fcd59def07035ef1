/* Rotation renames the current file while we look. So all files are opened first, the rotated ones
 * listed before and again after the current one was opened: when nothing was rotated in between,
 * the current one begins where the list says. */
#include "worker/log_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"
#include "worker/log_list.h"

#define TRIES 100

/* The current file: opened, with its place in the stream. fd -1: there is none. */
struct current {
    struct log_list list;
    int fd;
    uint64_t bytes;
};

static uint64_t last_start(const struct log_list *list)
{
    return list->count > 0 ? list->parts[list->count - 1].start + 1 : 0;
}

static int current_open(struct current *c, const char *path, struct err *err)
{
    for (int i = 0; i < TRIES; i++) {
        struct log_list again;
        struct stat st;
        if (log_list_read(&c->list, path) != 0) {
            return err_set_errno(err, "cannot read the folder of %s", path);
        }
        c->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (c->fd < 0 && errno != ENOENT) {
            log_list_fini(&c->list);
            return err_set_errno(err, "cannot open %s", path);
        }
        c->bytes = c->fd >= 0 && fstat(c->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
        bool same = log_list_read(&again, path) == 0 && last_start(&again) == last_start(&c->list);
        log_list_fini(&again);
        if (same) {
            return 0;
        }
        if (c->fd >= 0) {
            close(c->fd);
        }
        log_list_fini(&c->list);
    }
    return err_set(err, ERR_AGAIN, "%s is rotated faster than it can be read", path);
}

static void current_close(struct current *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    log_list_fini(&c->list);
}

static uint64_t stream_end(const struct current *c)
{
    return c->list.current_start + c->bytes;
}

static uint64_t stream_begin(const struct current *c)
{
    return c->list.count > 0 ? c->list.parts[0].start : 0;
}

static size_t pread_all(int fd, uint8_t *data, size_t len, uint64_t at)
{
    size_t done = 0;
    while (done < len) {
        ssize_t got = pread(fd, data + done, len - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    return done;
}

/* Appends stream bytes [from, to) to *out; stops early at a gap or at a file that was removed
 * meanwhile. */
static void read_range(const struct current *c, uint64_t from, uint64_t to, struct buf *out)
{
    for (size_t i = 0; i <= c->list.count && from < to; i++) {
        bool is_current = i == c->list.count;
        uint64_t start = is_current ? c->list.current_start : c->list.parts[i].start;
        uint64_t bytes = is_current ? c->bytes : c->list.parts[i].bytes;
        if (from < start || from >= start + bytes) {
            continue;
        }
        uint64_t stop = to < start + bytes ? to : start + bytes;
        size_t len = (size_t)(stop - from);
        int fd =
            is_current ? c->fd : open(c->list.parts[i].path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        size_t got = fd < 0 ? 0 : pread_all(fd, buf_reserve(out, len), len, from - start);
        out->len += got;
        from += got;
        if (fd >= 0 && !is_current) {
            close(fd);
        }
        if (got < len) {
            return;
        }
    }
}

int log_read(const char *path, uint64_t offset, size_t bytes_max, struct log_chunk *chunk,
             struct err *err)
{
    struct current c;
    *chunk = (struct log_chunk){0};
    TRY(current_open(&c, path, err));
    uint64_t end = stream_end(&c);
    if (offset < stream_begin(&c)) {
        offset = stream_begin(&c);
    }
    if (offset > end) {
        offset = end;
    }
    read_range(&c, offset, end - offset > bytes_max ? offset + bytes_max : end, &chunk->data);
    chunk->offset = offset;
    chunk->next_offset = offset + chunk->data.len;
    chunk->end = chunk->next_offset >= end;
    current_close(&c);
    return 0;
}

int log_tail_offset(const char *path, uint64_t lines, uint64_t *offset, struct err *err)
{
    struct current c;
    TRY(current_open(&c, path, err));
    struct buf block = {0};
    uint64_t end = stream_end(&c);
    uint64_t at = end;
    uint64_t begin = stream_begin(&c);
    bool found = lines == 0;
    *offset = lines == 0 ? end : begin;
    while (!found && at > begin) {
        uint64_t from = at - begin > LOG_READ_BYTES_DEFAULT ? at - LOG_READ_BYTES_DEFAULT : begin;
        buf_reset(&block);
        read_range(&c, from, at, &block);
        for (size_t i = block.len; i > 0 && !found; i--) {
            /* The newline that ends the last line begins nothing. */
            if (block.data[i - 1] == '\n' && from + i < end && --lines == 0) {
                *offset = from + i;
                found = true;
            }
        }
        at = from;
    }
    buf_fini(&block);
    current_close(&c);
    return 0;
}
