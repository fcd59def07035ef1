/* Where shims come from. Executing a program (loading its libraries, probing the processor, which
 * in a virtual machine is slow) costs more than all that a shim does for a short job. So dsshim is
 * executed once; that process, the nursery, forks itself for each attempt and becomes its shim
 * there (shim_nursery.c). It goes when the worker goes; the shims stay. */
#ifndef WORKER_NURSERY_H
#define WORKER_NURSERY_H

#include <pthread.h>

#include "lib/err.h"

struct nursery {
    const char *program; /* borrowed; path of dsshim */
    pthread_mutex_t lock;
    int fd; /* -1: not running */
};

/* Starts nothing yet. */
void nursery_init(struct nursery *n, const char *program);
void nursery_fini(struct nursery *n); /* a zeroed one is fine */
/* A shim in the attempt folder `dir`, with the socket it serves and what it shall run (a file with
 * a ShimLaunch, from its beginning). From any thread. When this returns 0 the shim is on its way;
 * if it does not get there, the socket's other ends see it close. */
int nursery_launch(struct nursery *n, const char *dir, int listener, int launch, struct err *err);

#endif
