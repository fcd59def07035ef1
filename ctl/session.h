/* The connection to the coordinator: made when first needed, and made again when it was lost. */
#ifndef CTL_SESSION_H
#define CTL_SESSION_H

#include <stdbool.h>
#include <stdio.h>

#include "proto/client.h"

#define SESSION_DEFAULT_SERVER "/run/ds/dsd.sock"

struct session {
    const char *address; /* borrowed: --server, else DS_SERVER, else the default */
    int64_t timeout_ms;  /* --timeout; 0: each method's own */
    FILE *errors;        /* borrowed; only session_call_patiently writes to it */
    struct client *client;
    /* The last call failed on the way (no answer, no connection) rather than by the coordinator's
     * word. */
    bool lost;
};

void session_init(struct session *s, const char *server, int64_t timeout_ms, FILE *errors);
void session_fini(struct session *s);

/* Connects if there is no connection: to learn that nobody is there before anything is sent. */
int session_open(struct session *s, struct err *err);
/* One request and its reply. reply: address of a Ds__... pointer, for rpc_free. A failure on the
 * way is ERR_UNREACHABLE or ERR_TIMEOUT with `lost` set; nothing is repeated. */
int session_call(struct session *s, uint16_t method, const void *request, void *reply,
                 struct err *err);
/* The same with a time limit of its own. */
int session_call_within(struct session *s, uint16_t method, const void *request, void *reply,
                        int64_t timeout_ms, struct err *err);
/* For what outlives a restart of the coordinator, and may be asked twice: repeats the call while it
 * fails on the way, until give_up_ms (clock_boot_ms, -1: never). Says on stderr when it starts and
 * when it gets through. Each try takes at most timeout_ms; none starts after give_up_ms. */
int session_call_patiently(struct session *s, uint16_t method, const void *request, void *reply,
                           int64_t timeout_ms, int64_t give_up_ms, struct err *err);

#endif
