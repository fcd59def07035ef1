/* The shell's side of an attempt: its folder, its shim, the work under way for it. One is attached
 * to every agent_attempt that has a folder. */
#ifndef WORKER_ATTEMPT_H
#define WORKER_ATTEMPT_H

#include <uv.h>

#include "worker/conn.h"
#include "worker/user.h"
#include "worker/worker.h"

struct store_keep;

struct attempt {
    struct worker *worker;
    struct agent_attempt *a;  /* borrowed */
    char *dir, *log_dir;      /* owned */
    Ds__AttemptStart *order;  /* owned */
    struct conn *shim;        /* owned; NULL when not connected */
    struct store_keep *store; /* owned; NULL until a rank sets something */
    uint64_t next_shim_request;
    bool clean_again;  /* processes of a dead shim did not die: look again */
    char *addr;        /* owned; that ranks bind */
    uid_t uid;         /* of the ranks, once launched */
    struct user user;  /* the job's, when this worker is root */
    bool becomes_user; /* ranks run as user */
    /* of the work under way */
    uv_work_t work;
    struct buf order_frame;
    int work_code, work_fd;
    struct err work_err;
    uint64_t log_bytes;
};

/* attempt_run.c: from the order to the shim. order is taken over. */
void attempt_attach(struct worker *w, struct agent_attempt *a, Ds__AttemptStart *order);
void attempt_persist(struct attempt *t);
void attempt_launch(struct attempt *t);
/* Finds the attempts that an earlier worker left. */
int attempt_adopt_all(struct worker *w, struct err *err);
/* Deletes the folder, tells the agent, frees. */
void attempt_remove(struct attempt *t);
/* Touches nothing on disk. NULL is fine. */
void attempt_free(struct attempt *t);
/* The attempt's control group; NULL when this worker has none to give. Caller frees. */
char *attempt_cgroup(const struct attempt *t);

/* Writes `status` as a shim does at the end, with what is known here. */
void attempt_record_end(const struct attempt *t);

/* attempt_shim.c: the connection with the shim. */
void attempt_shim_open(struct attempt *t, int fd);
/* Says what the agent wants of it: STOP. As soon as it is connected. */
void attempt_shim_stop(struct attempt *t);
/* The shim is gone: by what it left, either the end or what nobody saw. */
void attempt_shim_gone(struct attempt *t);
void attempt_feed(struct attempt *t, const Ds__ShimStatus *status);

#endif
