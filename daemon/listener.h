/* The two doors: a Unix socket and a TCP port. */
#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include "daemon/conn.h"

struct listener {
    struct conn_hub *hub; /* borrowed */
    enum transport_kind kind;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } u;
    char name[160]; /* where it listens, for people: the path, or host:port with the real port */
    bool open;
    int64_t warned_ms; /* when running out of file descriptors was last logged; 0 never */
};

/* path: mode 0660. A socket left behind by a dead process is replaced; one that somebody answers on
 * is not (ERR_CONFLICT). */
int listener_open_unix(struct listener *l, struct conn_hub *hub, const char *path, struct err *err);
/* address: HOST:PORT, a loopback address; port 0 lets the kernel choose. */
int listener_open_tcp(struct listener *l, struct conn_hub *hub, const char *address,
                      struct err *err);
/* Whether the address would do. */
int listener_check_tcp(const char *address, struct err *err);
/* Also removes the Unix socket. A zeroed listener is fine. The memory stays the loop's until it ran
 * once more. */
void listener_close(struct listener *l);

#endif
