/* Keeps the logs of ended attempts within a total: when there are more, the attempts that ended
 * first lose theirs. Only accounting: no I/O but in the functions that say so, which may run on any
 * thread. */
#ifndef WORKER_LOG_KEEP_H
#define WORKER_LOG_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_entry {
    uint64_t job, epoch;
    uint64_t bytes; /* on disk */
    int64_t ended_at_ms;
};
struct log_keep {
    struct log_entry *entries; /* owned; oldest first, from `at` on */
    size_t at, count, capacity;
    uint64_t total_bytes, bytes_max;
};

void log_keep_init(struct log_keep *keep, uint64_t bytes_max);
void log_keep_fini(struct log_keep *keep);
/* Entries may come in any order. */
void log_keep_add(struct log_keep *keep, const struct log_entry *entry);
/* Takes the oldest entry out when the total is too large. False: nothing to remove. */
bool log_keep_take_excess(struct log_keep *keep, struct log_entry *entry);

/* I/O: what a folder takes on disk, itself included. */
uint64_t log_folder_bytes(const char *path);
/* I/O: removes the attempt's logs, and the job's folder when it was the last. */
void log_folder_remove(const char *state_dir, uint64_t job, uint64_t epoch);
/* I/O: adds the attempts in STATE/logs that are wanted. */
typedef bool (*log_wanted_cb)(void *ctx, uint64_t job, uint64_t epoch);
void log_keep_scan(struct log_keep *keep, const char *state_dir, log_wanted_cb wanted, void *ctx);
/* I/O: the newest epoch of a job that has logs; 0: none. */
uint64_t log_newest_epoch(const char *state_dir, uint64_t job);

#endif
