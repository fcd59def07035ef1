/* One request being served. A handler answers it with call_reply or call_fail, at once or later;
 * both end the call. When the peer goes away meanwhile, a parked call ends by itself, another one
 * lives on until its work is done and is then answered to nobody. */
#ifndef DAEMON_CALL_H
#define DAEMON_CALL_H

#include "daemon/dsd.h"
#include "proto/rpc.h"

struct session;

/* What the shell knows of a connection. Made with its first frame. */
struct peer {
    struct dsd *dsd;   /* borrowed */
    struct conn *conn; /* borrowed */
    char program[32], version[32];
    char user[TRANSPORT_USER_MAX + 1];
    struct session *session; /* when a worker registered on it */
    size_t parked;
    LIST_HEAD(, call) calls;
};

struct call {
    struct dsd *dsd;   /* borrowed */
    struct peer *peer; /* borrowed; NULL: gone, or already answered */
    uint16_t method;
    uint64_t request_id;
    int64_t deadline_ms; /* uv_now; INT64_MAX none */

    struct pending pending;                                      /* call_commit */
    void (*done)(struct call *call, const struct effect *reply); /* call_commit */
    bool busy; /* counts in the connection's in_flight */
    bool parked;
    bool timed;
    void (*expired)(struct call *call); /* call_park */
    void (*unhook)(struct call *call);  /* call_park */
    uv_timer_t timer;

    uint64_t id;    /* the handler's: the job, checkpoint, waiter ... it is about */
    uint64_t since; /* the handler's */
    uint32_t limit; /* the handler's */
    void *data;     /* the handler's; freed with the call */
    void *link;     /* the handler's; borrowed */
    LIST_ENTRY(call) of_peer;
    LIST_ENTRY(call) waiting; /* the handler's list, while parked */
};

struct call *call_begin(struct peer *peer, const struct frame *f);

/* Both end the call. message is copied. */
void call_reply(struct call *call, const ProtobufCMessage *message);
void call_fail(struct call *call, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Replies Empty when code is 0. */
void call_outcome(struct call *call, int code, const char *text);
/* Sends *message (and frees it with rpc_free), or the error when rc is not 0. */
void call_answer(struct call *call, int rc, ProtobufCMessage *message, const struct err *err);

/* The connection counts it as waiting for a commit. */
void call_busy(struct call *call);
/* Hands an input to the core; done gets its EFFECT_REPLY once it is durable and has to answer. */
void call_commit(struct call *call, struct input *in,
                 void (*done)(struct call *call, const struct effect *reply));
/* A done that answers Empty or the error. */
void call_done_empty(struct call *call, const struct effect *reply);

/* Waits for something else than the core. After wait_ms, expired is called and has to answer; at
 * the request's deadline, if that is sooner, the call fails with ERR_TIMEOUT. unhook is called
 * once, when the call ends, however it does. False: the connection has too many such calls already,
 * and the call was answered. */
bool call_park(struct call *call, int64_t wait_ms, void (*expired)(struct call *call),
               void (*unhook)(struct call *call));
/* Work that nobody can interrupt is under way: at the deadline the peer gets ERR_TIMEOUT, the call
 * lives on until answered. */
void call_work(struct call *call);

/* The peer is gone: ends or detaches all its calls. */
void call_peer_gone(struct peer *peer);

#endif
