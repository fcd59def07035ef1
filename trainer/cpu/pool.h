/* A few threads that share out the items of one loop at a time. */
#ifndef TRAINER_CPU_POOL_H
#define TRAINER_CPU_POOL_H

#include <stddef.h>

/* 1 and less: none, the caller's thread does it all. Starts and stops threads as needed. */
void pool_resize(int threads);
int pool_threads(void);

/* Calls fn(ctx, task, worker) for each task in [0, tasks), worker in [0, pool_threads()), and
 * returns when all are done. Tasks must not depend on each other. */
typedef void pool_fn(void *ctx, size_t task, size_t worker);
void pool_run(pool_fn *fn, void *ctx, size_t tasks);

#endif
