/* A coordinator for tests: real frames on a Unix socket, answers from a function. Runs in a thread
 * of its own. */
#ifndef TESTS_UNIT_CTL_FAKE_SERVER_H
#define TESTS_UNIT_CTL_FAKE_SERVER_H

#include "proto/rpc.h"

struct fake_server;
struct fake_call;

/* Called for every request but HELLO. It ends with one of the three below. */
typedef void (*fake_handler)(struct fake_call *call, uint16_t method,
                             const ProtobufCMessage *request, void *arg);

void fake_reply(struct fake_call *call, const void *message); /* of the method's reply type */
void fake_refuse(struct fake_call *call, int code, const char *text);
void fake_drop(struct fake_call *call); /* closes the connection without an answer */

struct fake_server *fake_server_start(fake_handler handler, void *arg);
void fake_server_stop(struct fake_server *server);
const char *fake_server_address(const struct fake_server *server);

#endif
