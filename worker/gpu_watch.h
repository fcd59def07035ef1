/* Watches the condition of the GPUs on a thread of its own: the driver's events, the kernel's log
 * and, every so often, all that the driver says. */
#ifndef WORKER_GPU_WATCH_H
#define WORKER_GPU_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "worker/config.h"
#include "worker/inventory.h"

struct gpu_watch;

/* changed is called on the loop when gpu_watch_take has something new. NULL: there is no driver.
 * What is worth no more than saying is told at most every five minutes a GPU; what must be done, at
 * once. */
struct gpu_watch *gpu_watch_start(uv_loop_t *loop, const struct config *config,
                                  const struct inventory *inv, void (*changed)(void *owner),
                                  void *owner);
/* Brings the inventory's health up to date; true: something is different. */
bool gpu_watch_take(struct gpu_watch *w, struct inventory *inv);
/* Waits for the thread, up to a second. No callback afterwards. Frees when libuv is done. NULL is
 * fine. */
void gpu_watch_stop(struct gpu_watch *w);

#endif
