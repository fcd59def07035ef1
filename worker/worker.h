/* One dsworkerd: what its parts share. worker.c ties them together. Callbacks only tell the agent
 * what happened; what follows from it is carried out once per turn of the loop, before it sleeps,
 * so that no callback finds its own lists changed under it. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "worker/agent.h"
#include "worker/config.h"
#include "worker/gpu_watch.h"
#include "worker/inventory.h"
#include "worker/link.h"
#include "worker/log_keep.h"
#include "worker/nursery.h"

struct rank_server;

#define BOOT_ID_BYTES 64

struct worker {
    const struct config *config; /* borrowed */
    uv_loop_t loop;
    struct agent *agent;
    struct link *link;
    struct rank_server *ranks;
    struct log_keep logs;
    struct inventory inventory;
    struct gpu_watch *watch; /* owned, or NULL */
    struct nursery nursery;
    char boot_id[BOOT_ID_BYTES];
    char *report_socket; /* owned; its path */
    char *cgroup;        /* owned; delegated to us, or NULL */
    uint32_t cores;
    bool nvidia;
    uint64_t term; /* the highest ever seen; durable */
    int lock_fd;
    bool loop_open;
    enum { WORKER_SERVING, WORKER_STOPPING_RANKS, WORKER_CLOSING } stage;
    uv_signal_t signals[2];
    uv_timer_t retry;  /* for attempts whose processes do not die */
    uv_prepare_t pump; /* carries out what the agent wants, once per turn of the loop */
    unsigned works;    /* uv_queue_work under way */
};

/* Makes the state folder, takes its lock, reads what is in it, and starts everything but the loop.
 */
int worker_start(struct worker *w, const struct config *config, struct err *err);
/* Until SIGTERM or SIGINT. */
void worker_run(struct worker *w);
void worker_fini(struct worker *w);

/* work runs on the thread pool, then done on the loop. The owner embeds the request. */
void worker_queue(struct worker *w, uv_work_t *request, uv_work_cb work, uv_after_work_cb done);
/* To be called first thing in each done. */
void worker_dequeued(struct worker *w);

/* Looks again, in a while, at attempts with clean_again set. */
void worker_retry(struct worker *w);
/* An attempt was forgotten: its logs count from now on, and the oldest go when there are too many.
 */
void worker_logs_ended(struct worker *w, const struct log_entry *entry);

/* orders.c */
void worker_order(struct worker *w, uint64_t token, const struct frame *f);

#endif
