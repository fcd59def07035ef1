/* Reading a rank's output (log_file.h) while it is being written and rotated. */
#ifndef WORKER_LOG_READ_H
#define WORKER_LOG_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define LOG_READ_BYTES_DEFAULT (64u * 1024u)
#define LOG_READ_BYTES_MAX     (1024u * 1024u)

struct log_chunk {
    struct buf data; /* owned */
    uint64_t offset; /* of its first byte */
    uint64_t next_offset;
    bool end; /* there is nothing more now */
};

/* path: of the current file. From offset on, or from the oldest byte that is still kept; past the
 * end: nothing. A file that is not there is empty. The caller frees chunk->data. */
int log_read(const char *path, uint64_t offset, size_t bytes_max, struct log_chunk *chunk,
             struct err *err);
/* The offset at which the last `lines` lines begin; a last line without its newline counts. */
int log_tail_offset(const char *path, uint64_t lines, uint64_t *offset, struct err *err);

#endif
