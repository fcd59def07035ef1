/* A worker's registration on a connection, and the orders sent over it that were not answered yet.
 * Orders are requests of ours; they are idempotent and sent again by the core when the worker
 * registers anew, so nothing is kept when the connection breaks. */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include "daemon/call.h"

struct session {
    session_id id;
    struct peer *peer; /* borrowed */
    char *name;        /* owned; the node */
    bool known;        /* the core was told of it */
    bool joined;       /* and agreed */
    uint64_t next_request;
    LIST_HEAD(, order) orders;
};

/* The peer's session, made when it has none. */
struct session *session_of_peer(struct peer *peer, const char *name);
struct session *session_find(struct dsd *d, session_id id); /* NULL: gone */
/* Tells the core, answers calls that wait for this worker. NULL is fine. */
void session_destroy(struct session *s);

/* Sends a request. job, epoch or ckpt: what it is about; call: who gets the answer of a LOG_READ,
 * else NULL. */
void session_order(struct session *s, uint16_t method, const ProtobufCMessage *message,
                   uint64_t job, uint64_t epoch_or_ckpt, struct call *call);
/* The call does not want the answer any more. */
void session_order_orphan(struct call *call);
/* A FRAME_REPLY or FRAME_ERROR came. False: nobody asked. */
bool session_answer(struct session *s, const struct frame *f);

#endif
