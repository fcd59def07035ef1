/* The socket of the ranks (DS_REPORT_SOCKET). After RANK_HELLO a rank's reports and rendezvous
 * requests go on to the coordinator and the answers come back, so that what a rank sees
 * acknowledged is durable there. While there is no coordinator they wait here. */
#ifndef WORKER_RANK_SERVER_H
#define WORKER_RANK_SERVER_H

#include "worker/worker.h"

struct rank_server;

/* Listens on w->report_socket. */
int rank_server_create(struct rank_server **server, struct worker *w, struct err *err);
/* No callback comes after this; frees when libuv is done. NULL is fine. */
void rank_server_destroy(struct rank_server *server);

/* After each registration: rendezvous values of live attempts first, then what waits. */
void rank_server_link_up(struct rank_server *server);
/* Pushes RANK_STOP to the ranks of the attempt. */
void rank_server_stop(struct rank_server *server, const struct agent_attempt *a,
                      const char *reason);
/* The process is gone: its connections end at the latest in half a second, even when a child of it
 * holds them open. */
void rank_server_exited(struct rank_server *server, const struct agent_attempt *a, uint32_t rank);
/* The attempt is forgotten: so is all of it here. */
void rank_server_forget(struct rank_server *server, const struct agent_attempt *a);

#endif
