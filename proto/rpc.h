/* The methods of rpc.def as an enum and a table, and packing of messages into frames. */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/ds.pb-c.h"
#include "proto/frame.h"

#define RPC_PROTOCOL 1

enum rpc_method {
#define RPC(name, number, request, reply, deadline_ms) RPC_##name = number,
#include "proto/rpc.def"
#undef RPC
};

struct rpc_info {
    uint16_t number;
    const char *name;
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *reply;
    uint32_t deadline_ms;
};

/* NULL when there is no such method. */
const struct rpc_info *rpc_find(uint16_t number);

/* Appends a frame with the packed message to *out. The message must be of the method's type for
 * that kind (asserted): a one-way frame carries the method's request, or where that is Empty its
 * reply (pushed unasked). deadline_ms of a request is the method's own. Bytes that are not UTF-8 in
 * strings are sent as '?'. ERR_TOO_LARGE when the message does not fit a frame: then a reply is
 * sent as an error that says so, and anything else is not appended. */
int rpc_pack(struct buf *out, uint16_t method, enum frame_kind kind, uint64_t request_id,
             const ProtobufCMessage *message);
/* text over 4095 bytes is cut. */
void rpc_pack_error(struct buf *out, uint16_t method, uint64_t request_id, int code,
                    const char *text);

/* Unpacks a frame's payload as the method's request or reply type. The result is freed with
 * rpc_free. Refuses invalid UTF-8 and embedded NULs in strings, what protobuf-c refuses, and what
 * would take over 32 MiB of memory, with ERR_PROTOCOL. */
int rpc_unpack(const struct frame *f, ProtobufCMessage **message, struct err *err);
void rpc_free(ProtobufCMessage *message);
/* Turns a FRAME_ERROR payload into *err and returns its code (never 0). */
int rpc_unpack_error(const struct frame *f, struct err *err);

#endif
