/* Inside of the reporter: what its callers (reporter.c) and its thread (reporter_line.c) share. */
#ifndef PROTO_REPORTER_LINE_H
#define PROTO_REPORTER_LINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/buf.h"
#include "proto/reporter.h"
#include "proto/rpc.h"

/* Someone blocked in reporter_store_set or _get; on that thread's stack. */
struct waiter {
    bool done;
    int rc;
    struct err err;
    void *value; /* owned; of a get */
    size_t len;
};

/* One request that was not answered yet. Its frame stays the same however often it is sent. */
struct call {
    uint64_t id;
    uint16_t method;
    struct buf frame;
    struct waiter *waiter; /* borrowed; NULL: a report */
    uint64_t step;         /* of a shard report: its step; of a step report: its first */
    char *key;          /* owned; of a get, whose frame is made anew with the time that is left */
    int64_t give_up_ms; /* of a get */
    bool sent;          /* on the present connection */
    int64_t not_before_ms; /* a retry waits until then */
    int64_t answer_by_ms;  /* later the connection counts as broken */
    unsigned tries;
};

struct step {
    Ds__Metric metric; /* its text is owned */
    uint64_t ckpt_stall_ms, data_wait_ms;
};

struct reporter {
    char *path;
    uint64_t job, epoch;
    uint32_t rank;
    atomic_bool stop_requested, stale;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    pthread_t thread;
    int wake_fd; /* eventfd */
    bool quit;
    uint64_t next_id;
    struct call **calls; /* owned; oldest first */
    size_t call_count, call_capacity;
    struct step *steps; /* owned; not yet in a call */
    size_t step_count, step_capacity;
    uint64_t steps_goal;
    bool complained; /* about a refused report; one line until the next success */

    int fd; /* -1: none */
    bool greeted;
    uint64_t hello_id;
    int64_t hello_by_ms;
    int64_t connect_at_ms;
    unsigned connect_tries;
    struct buf in, out;
};

/* The thread. */
void *reporter_line_run(void *reporter);
/* Lock held. */
struct call *reporter_add_call(struct reporter *r, uint16_t method);
void reporter_remove_call(struct reporter *r, size_t index);
/* The oldest ones. */
void reporter_remove_steps(struct reporter *r, size_t count);

#endif
