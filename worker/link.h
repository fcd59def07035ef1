/* The connection to the coordinator: dials, says HELLO, registers, beats; and for ever again when
 * it is lost, first after 50 ms, then with growing pauses up to 2 s. Losing it harms nobody: what
 * is under way fails with ERR_UNREACHABLE and its owner sends it again after the next registration.
 */
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "lib/err.h"
#include "proto/rpc.h"

struct link;

struct link_ops {
    /* The coordinator answered: to be followed by link_register, within the call. */
    void (*greeted)(void *owner);
    /* Accepted. Not 0: this coordinator must not be obeyed; the link drops it and tries again. */
    int (*registered)(void *owner, const Ds__WorkerRegisterReply *reply, struct err *err);
    /* After registered only. */
    void (*lost)(void *owner);
    /* A request of the coordinator, to be answered once through link_answer or link_reply with the
     * token. f is borrowed. */
    void (*order)(void *owner, uint64_t token, const struct frame *f);
};

/* address: a path (has a '/') or host:port. All arguments are borrowed for the link's life. */
struct link *link_create(uv_loop_t *loop, const char *address, const struct link_ops *ops,
                         void *owner);
void link_start(struct link *link);
void link_register(struct link *link, const Ds__WorkerRegister *message);
/* Requests under way fail; no callback comes after this. Frees when libuv is done. NULL is fine. */
void link_destroy(struct link *link);

/* The coordinator no longer knows this worker: connect and register again. */
void link_drop(struct link *link, const char *why);
bool link_is_up(const struct link *link); /* registered */
/* This end's address on the connection, such as 10.1.2.3; NULL over a Unix socket or when not
 * connected. */
const char *link_local_address(const struct link *link);

/* code 0: f is the reply. Else why not; ERR_UNREACHABLE when the link broke first. Both borrowed.
 */
typedef void (*link_reply_cb)(void *ctx, int code, const char *text, const struct frame *f);
/* Sends while the link is up, else calls back with ERR_UNREACHABLE at once. */
void link_request(struct link *link, uint16_t method, const ProtobufCMessage *message,
                  link_reply_cb cb, void *ctx);
/* The same with a payload that is already packed. */
void link_forward(struct link *link, const struct frame *request, link_reply_cb cb, void *ctx);
/* The owner of these requests is gone: no callback for them. */
void link_cancel(struct link *link, const void *ctx);

/* A token of a connection that is gone is ignored. */
void link_answer(struct link *link, uint64_t token, int code, const char *text);
void link_reply(struct link *link, uint64_t token, const ProtobufCMessage *message);

#endif
