#include "trainer/shard_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"

#define CHUNK_BYTES ((size_t)4 << 20) /* hashed while it is in the processor's cache */

int shard_file_create(struct shard_file *f, const char *path, uint64_t bytes, struct err *err)
{
    *f = (struct shard_file){.path = mem_strdup(path), .tmp = mem_printf("%s.tmp", path)};
    f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        return err_set_errno(err, "cannot create %s", f->tmp);
    }
    /* File systems without the call are fine. */
    if (bytes > 0 && fallocate(f->fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS) {
        return err_set_errno(err, "%s: cannot reserve %llu bytes", f->tmp,
                             (unsigned long long)bytes);
    }
    return digest_init(&f->digest, err);
}

int shard_file_write(struct shard_file *f, const void *data, size_t len, struct err *err)
{
    const char *p = data;
    while (len > 0) {
        size_t n = len < CHUNK_BYTES ? len : CHUNK_BYTES;
        digest_update(&f->digest, p, n);
        int rc = file_write_all(f->fd, p, n, err);
        if (rc != 0) {
            return err_wrap(err, "%s", f->tmp);
        }
        f->bytes += n;
        p += n;
        len -= n;
    }
    return 0;
}

int shard_file_commit(struct shard_file *f, char xxh3[33], char sha256[65], struct err *err)
{
    digest_final(&f->digest, xxh3, sha256);
    if (fsync(f->fd) != 0) {
        return err_set_errno(err, "cannot fsync %s", f->tmp);
    }
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) != 0) {
        return err_set_errno(err, "cannot close %s", f->tmp);
    }
    if (rename(f->tmp, f->path) != 0) {
        return err_set_errno(err, "cannot rename %s to %s", f->tmp, f->path);
    }
    free(f->tmp);
    f->tmp = NULL; /* it is none any more */
    return 0;
}

void shard_file_close(struct shard_file *f)
{
    if (f->path != NULL && f->fd >= 0) {
        close(f->fd);
    }
    if (f->tmp != NULL) {
        unlink(f->tmp);
    }
    digest_fini(&f->digest);
    free(f->path);
    free(f->tmp);
    *f = (struct shard_file){.fd = -1};
}
