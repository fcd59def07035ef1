/* dsshim: the parent of the ranks of one attempt on one node. It outlives its worker, so that a
 * worker may be restarted under a running job, and it is the only one that can collect their exit
 * statuses.
 *
 * Forked by the nursery (nursery.h), into the attempt folder, with the socket shim.sock already
 * listening as descriptor 3 and what it shall run (ShimLaunch) as descriptor 4. It writes `status`
 * there (a frame of ShimStatus), durably and before anyone is told, whenever a rank has exited.
 * When all are gone it goes too: `status` says phase 3 then, and a shim that is gone without that
 * was killed. */
#ifndef WORKER_SHIM_H
#define WORKER_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/rpc.h"
#include "worker/shim_rank.h"

#define SHIM_STATUS_FILE      "status"
#define SHIM_SOCKET_FILE      "shim.sock"
#define SHIM_LOG_FILE         "shim.log"
#define SHIM_LAUNCH_BYTES_MAX (16u << 20)
#define SHIM_LISTEN_FD        3
#define SHIM_LAUNCH_FD        4
#define SHIM_NURSERY_FD       3 /* of the nursery: its orders */
#define SHIM_NURSERY_NAME     "dsshim-nursery"

#define SHIM_CLIENTS_MAX 4
#define SHIM_GRACE_MS    10000 /* when it stops the ranks on its own account */

struct shim_client {
    int fd; /* -1: free */
    struct buf in, out;
};

struct shim {
    Ds__ShimLaunch *launch; /* owned */
    struct shim_rank *ranks;
    uint32_t rank_count;
    uint32_t alive; /* ranks that have not exited */
    int signal_fd;
    struct shim_client clients[SHIM_CLIENTS_MAX];
    uint64_t start_ticks;

    uint32_t phase;
    int64_t started_at_ms, ended_at_ms; /* wall clock */
    struct err error;                   /* why the ranks could not be started */
    char *stuck;                        /* owned; or NULL */
    bool changed;                       /* something to tell */
    bool exits_changed;                 /* something to write first */

    bool stopping;
    int64_t kill_at_ms; /* boot clock; when TERM becomes KILL */
    int64_t killing_since_ms, next_kill_ms;
    int64_t orphan_since_ms; /* since when no worker is connected */
};

/* shim_serve.c: the socket and the status */
void shim_serve_init(struct shim *s);
void shim_serve_accept(struct shim *s);
void shim_serve_client(struct shim *s, struct shim_client *c, short events);
bool shim_has_client(const struct shim *s);
/* Writes what must be durable, then pushes the status to every client. */
void shim_tell(struct shim *s);
/* Gives what is still to be sent up to wait_ms, then closes. */
void shim_serve_finish(struct shim *s, int64_t wait_ms);

/* shim_nursery.c: true in a new shim, which is then in its folder with its descriptors; false when
 * this process is to go. place: argv[0], in which the process list sees the name. */
bool shim_nursery(char *place);

/* shim_main.c */
void shim_stop(struct shim *s, uint64_t grace_ms, const char *reason);

#endif
