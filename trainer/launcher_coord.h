/* The coordinator's part that ranks need, for ranks that a person started: serves the report socket
 * (rendezvous store, step and shard reports), commits a checkpoint when all its shards are there.
 * One thread, poll(2). */
#ifndef TRAINER_LAUNCHER_COORD_H
#define TRAINER_LAUNCHER_COORD_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct coord;

struct coord_options { /* copied, strings too */
    const char *socket_path;
    uint64_t job, epoch;
    uint32_t world;
    const char *ckpt_dir;     /* of this epoch */
    const char *metrics_path; /* a line of JSON a step is appended */
    void (*committed)(void *ctx, uint64_t step, uint64_t bytes);
    void *ctx;
};

int coord_create(struct coord **c, const struct coord_options *options, struct err *err);
void coord_destroy(struct coord *c); /* NULL is fine */

/* Fills fds with what to wait for; at most coord_poll_max(c) of them. */
size_t coord_poll_max(const struct coord *c);
size_t coord_poll_fill(struct coord *c, struct pollfd *fds);
/* Milliseconds until something is due even without an event; -1: nothing. */
int coord_poll_timeout(const struct coord *c);
/* Handles what poll returned in fds. ERR_NOSPACE, ERR_IO: a checkpoint could not be committed, the
 * run has to end. */
int coord_handle(struct coord *c, const struct pollfd *fds, size_t count, struct err *err);

#endif
