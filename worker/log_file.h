/* A rank's output as rotated files. NAME is the file being written; a full one is renamed to
 * NAME.OFFSET, where OFFSET (20 digits) is the place of its first byte in the stream as a whole. So
 * offsets go on over rotation, and no index is needed: NAME begins where the newest rotated file
 * ends. Files are made when the first byte comes. */
#ifndef WORKER_LOG_FILE_H
#define WORKER_LOG_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define LOG_NAME_BYTES 64

struct log_file {
    char *path;          /* owned; of the current file */
    int fd;              /* -1: not open */
    uint64_t start;      /* stream offset of the current file */
    uint64_t bytes;      /* in it */
    uint64_t bytes_max;  /* rotate beyond */
    uint32_t files_kept; /* rotated ones, at least 1 */
    uint64_t lost_bytes; /* not written since the last success */
};

/* "rank-3.out" or, for stderr, "rank-3.err". */
void log_file_name(char name[LOG_NAME_BYTES], uint32_t rank, int is_stderr);

void log_file_init(struct log_file *f, const char *dir, const char *name, uint64_t bytes_max,
                   uint32_t files_kept);
void log_file_fini(struct log_file *f);
/* What cannot be written (a full disk) is dropped and counted; a line in the log says so once
 * writing works again. */
void log_file_write(struct log_file *f, const void *data, size_t len);

#endif
