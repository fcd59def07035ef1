/* A blocking RPC client over a Unix or TCP socket, for dsctl and tests. Not thread-safe. */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include "proto/rpc.h"

struct client;

/* address: a path (has a '/'), or host:port. Connects, says HELLO. ERR_UNREACHABLE when nobody
 * listens. Caller destroys. */
int client_connect(struct client **client, const char *address, const char *program,
                   int64_t timeout_ms, struct err *err);
void client_destroy(struct client *client); /* NULL is fine */

/* Timeouts below 0 wait for ever. After ERR_TIMEOUT the connection is still good; a late reply is
 * dropped. */

/* One request, one reply (freed with rpc_free). ERR_TIMEOUT, ERR_UNREACHABLE (connection lost), or
 * the error the server sent. */
int client_call(struct client *client, uint16_t method, const ProtobufCMessage *request,
                ProtobufCMessage **reply, int64_t timeout_ms, struct err *err);

/* Pipelining: queue requests, then collect replies in any order. send returns the request id in
 * *id; the request leaves with the next receive or when 64 KiB are queued, and then send may block
 * while the peer is slow (replies that arrive meanwhile are kept). receive blocks for the next
 * reply to any request. *reply is NULL when the server sent an error, which is then in *err and the
 * return code is 0: outcome_code says which. */
int client_send(struct client *client, uint16_t method, const ProtobufCMessage *request,
                uint64_t *id, struct err *err);
int client_receive(struct client *client, uint64_t *id, ProtobufCMessage **reply, int *outcome_code,
                   int64_t timeout_ms, struct err *err);

/* From HELLO. */
const Ds__HelloReply *client_server(const struct client *client);

#endif
