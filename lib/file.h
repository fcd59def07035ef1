/* Files: whole reads, durable writes. */
#ifndef LIB_FILE_H
#define LIB_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

/* Appends the whole file to *out; ERR_TOO_LARGE when it has more than bytes_max. */
int file_read(const char *path, size_t bytes_max, struct buf *out, struct err *err);
/* Writes path.tmp, fsyncs, renames over path, fsyncs the folder: after return 0 the new content
 * survives a power loss, and at no instant does a reader see half of it. */
int file_write_durable(const char *path, const void *data, size_t len, unsigned mode,
                       struct err *err);
/* write(2) until all is written; EINTR is retried. */
int file_write_all(int fd, const void *data, size_t len, struct err *err);
int file_fsync_dir(const char *path, struct err *err);
/* mkdir -p; existing folders are fine. Fsyncs the parents of what it made. */
int file_mkdirs(const char *path, unsigned mode, struct err *err);
/* rm -r; missing is fine. Does not follow symbolic links. */
int file_remove_tree(const char *path, struct err *err);

#endif
