/* The files of one output stream (log_file.h), oldest first, each with its place in the stream. */
#ifndef WORKER_LOG_LIST_H
#define WORKER_LOG_LIST_H

#include <stddef.h>
#include <stdint.h>

struct log_part {
    char *path; /* owned */
    uint64_t start, bytes;
};
struct log_list {
    struct log_part *parts; /* owned; the rotated files, oldest first */
    size_t count, capacity;
    uint64_t current_start; /* where the file being written begins */
};

/* path: of the file being written, which may be missing. Not 0: the folder cannot be read. The
 * caller calls log_list_fini on success. */
int log_list_read(struct log_list *list, const char *path);
void log_list_fini(struct log_list *list);

#endif
