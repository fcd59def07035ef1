#include "worker/log_keep.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt_dir.h"

void log_keep_init(struct log_keep *keep, uint64_t bytes_max)
{
    *keep = (struct log_keep){.bytes_max = bytes_max};
}

void log_keep_fini(struct log_keep *keep)
{
    free(keep->entries);
    *keep = (struct log_keep){0};
}

void log_keep_add(struct log_keep *keep, const struct log_entry *entry)
{
    if (keep->at > 0 && keep->count == keep->capacity) {
        keep->count -= keep->at;
        memmove(keep->entries, keep->entries + keep->at, keep->count * sizeof *entry);
        keep->at = 0;
    }
    void *entries = keep->entries;
    mem_grow(&entries, &keep->capacity, keep->count + 1, sizeof *entry);
    keep->entries = entries;
    /* Nearly always the newest: the loop ends at once. */
    size_t place = keep->count++;
    while (place > keep->at && keep->entries[place - 1].ended_at_ms > entry->ended_at_ms) {
        keep->entries[place] = keep->entries[place - 1];
        place--;
    }
    keep->entries[place] = *entry;
    keep->total_bytes += entry->bytes;
}

bool log_keep_take_excess(struct log_keep *keep, struct log_entry *entry)
{
    if (keep->total_bytes <= keep->bytes_max || keep->at == keep->count) {
        return false;
    }
    *entry = keep->entries[keep->at++];
    keep->total_bytes -= entry->bytes;
    return true;
}

uint64_t log_folder_bytes(const char *path)
{
    struct stat st;
    uint64_t bytes = stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    DIR *d = opendir(path);
    if (d == NULL) {
        return bytes;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (uint64_t)st.st_blocks * 512;
        }
    }
    closedir(d);
    return bytes;
}

void log_folder_remove(const char *state_dir, uint64_t job, uint64_t epoch)
{
    struct err err;
    char *path = attempt_log_path(state_dir, job, epoch);
    if (file_remove_tree(path, &err) != 0) {
        log_warn("cannot remove old logs: %s", err.text);
    }
    *strrchr(path, '/') = 0;
    rmdir(path); /* fails while other attempts of the job have logs */
    free(path);
}

/* ---- what is on disk */

typedef void (*number_cb)(void *ctx, const char *dir, uint64_t number);

/* Calls back for every entry whose name is a number. */
static void each_number(const char *dir, number_cb cb, void *ctx)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char *end;
        uint64_t number = strtoull(e->d_name, &end, 10);
        if (*end == 0 && end != e->d_name) {
            cb(ctx, dir, number);
        }
    }
    closedir(d);
}

struct scan {
    log_wanted_cb wanted;
    void *ctx;
    uint64_t job;
    struct log_entry *found; /* owned */
    size_t count, capacity;
};

static void scan_epoch(void *ctx, const char *dir, uint64_t epoch)
{
    struct scan *scan = ctx;
    struct stat st;
    char *path = mem_printf("%s/%" PRIu64, dir, epoch);
    bool wanted = stat(path, &st) == 0 && scan->wanted(scan->ctx, scan->job, epoch);
    uint64_t bytes = wanted ? log_folder_bytes(path) : 0;
    free(path);
    if (!wanted) {
        return;
    }
    void *found = scan->found;
    mem_grow(&found, &scan->capacity, scan->count + 1, sizeof *scan->found);
    scan->found = found;
    scan->found[scan->count++] = (struct log_entry){
        .job = scan->job,
        .epoch = epoch,
        .bytes = bytes,
        .ended_at_ms = (int64_t)st.st_mtim.tv_sec * 1000,
    };
}

static void scan_job(void *ctx, const char *dir, uint64_t job)
{
    struct scan *scan = ctx;
    char *path = mem_printf("%s/%" PRIu64, dir, job);
    scan->job = job;
    each_number(path, scan_epoch, scan);
    free(path);
}

static int by_end(const void *a, const void *b)
{
    const struct log_entry *left = a;
    const struct log_entry *right = b;
    return (left->ended_at_ms > right->ended_at_ms) - (left->ended_at_ms < right->ended_at_ms);
}

void log_keep_scan(struct log_keep *keep, const char *state_dir, log_wanted_cb wanted, void *ctx)
{
    struct scan scan = {.wanted = wanted, .ctx = ctx};
    char *path = mem_printf("%s/logs", state_dir);
    each_number(path, scan_job, &scan);
    free(path);
    if (scan.count > 0) {
        qsort(scan.found, scan.count, sizeof *scan.found, by_end);
    }
    for (size_t i = 0; i < scan.count; i++) {
        log_keep_add(keep, &scan.found[i]);
    }
    free(scan.found);
}

static void newest(void *ctx, const char *dir, uint64_t epoch)
{
    (void)dir;
    uint64_t *best = ctx;
    *best = epoch > *best ? epoch : *best;
}

uint64_t log_newest_epoch(const char *state_dir, uint64_t job)
{
    uint64_t best = 0;
    char *path = mem_printf("%s/logs/%" PRIu64, state_dir, job);
    each_number(path, newest, &best);
    free(path);
    return best;
}
