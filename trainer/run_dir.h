/* The folder of a run that a person started (no coordinator): OUT/
 *     lock, spec.json, attempts.jsonl, metrics.jsonl, tb/, report.*,
 * checkpoints/e0001/step-0000000050/{MANIFEST.json,shard-...} Each start is an epoch with a folder
 * of its own, so that nothing is ever written twice. A checkpoint counts when its manifest is
 * there. */
#ifndef TRAINER_RUN_DIR_H
#define TRAINER_RUN_DIR_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct run_ckpt {
    uint64_t epoch, step;
    char *path; /* owned */
};
struct run_dir {
    char *path;                /* owned; absolute */
    char *ckpt_dir;            /* owned; of this epoch */
    int lock_fd, ckpt_lock_fd; /* -1: none */
    uint64_t epoch;            /* of this start, from 1 */
    struct run_ckpt *ckpts;    /* owned; the committed ones, oldest first */
    size_t count, capacity;
};

/* Creates what is missing, takes the lock (ERR_CONFLICT when another run is in there), finds the
 * checkpoints, removes what earlier starts never committed. ckpt_root: where the epochs' folders
 * are, or NULL for path/checkpoints. */
int run_dir_open(struct run_dir *d, const char *path, const char *ckpt_root, struct err *err);
/* Also removes what was never committed. */
void run_dir_close(struct run_dir *d);
/* Path of the newest checkpoint whose shards are whole, with a warning for each that is not; NULL
 * when there is none. */
const char *run_dir_newest(const struct run_dir *d);
/* A checkpoint of this epoch was committed: keeps the newest `keep` and, where the guard goes back
 * `rollback` steps (0: it does not), older ones to go back to, four at most; removes the others. */
void run_dir_committed(struct run_dir *d, uint64_t step, uint32_t keep, uint64_t rollback);

#endif
