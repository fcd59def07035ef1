#include "daemon/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/log.h"

#define BACKLOG       1024
#define WARN_EVERY_MS 10000

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *l = stream->data;
    if (status == 0) {
        conn_hub_accept(l->hub, stream, l->kind);
        return;
    }
    /* Out of file descriptors: libuv has closed the newcomer through its spare one. Not a line for
     * each of them. */
    int64_t now_ms = (int64_t)uv_now(stream->loop);
    if (l->warned_ms == 0 || now_ms - l->warned_ms >= WARN_EVERY_MS) {
        l->warned_ms = now_ms;
        log_warn("cannot accept connections on %s: %s (%zu are open; raise LimitNOFILE)", l->name,
                 uv_strerror(status), l->hub->count);
    }
}

static int start(struct listener *l, struct err *err)
{
    int rc = uv_listen(&l->u.stream, BACKLOG, on_connection);
    if (rc != 0) {
        return err_set(err, rc == UV_EADDRINUSE ? ERR_CONFLICT : ERR_IO, "cannot listen on %s: %s",
                       l->name, uv_strerror(rc));
    }
    return 0;
}

/* ------------------------------------------------------------------ Unix */

/* Removes what a dead process left at path. */
static int clear_stale(const struct sockaddr_un *addr, struct err *err)
{
    const char *path = addr->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : err_set_errno(err, "cannot use %s as a socket", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return err_set(err, ERR_CONFLICT, "%s exists and is not a socket (choose another --socket)",
                       path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set_errno(err, "cannot make a socket");
    }
    int rc = connect(fd, (const struct sockaddr *)addr, sizeof *addr);
    int why = errno;
    close(fd);
    if (rc == 0 || why == EAGAIN) { /* EAGAIN: its backlog is full */
        return err_set(err, ERR_CONFLICT,
                       "another program answers on %s (stop it, or choose another --socket)", path);
    }
    if (why != ECONNREFUSED) {
        errno = why;
        return err_set_errno(err, "cannot tell who owns %s", path);
    }
    return unlink(path) == 0 ? 0 : err_set_errno(err, "cannot remove the stale socket %s", path);
}

int listener_open_unix(struct listener *l, struct conn_hub *hub, const char *path, struct err *err)
{
    *l = (struct listener){.hub = hub, .kind = TRANSPORT_UNIX};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        return err_set(
            err, ERR_INVALID,
            "the socket path has %zu bytes, at most %zu fit (choose a shorter --socket): %s",
            strlen(path), sizeof addr.sun_path - 1, path);
    }
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    snprintf(l->name, sizeof l->name, "%s", path);
    TRY(clear_stale(&addr, err));

    uv_pipe_init(hub->loop, &l->u.pipe, 0);
    l->u.handle.data = l;
    l->open = true;
    mode_t mask = umask(0117); /* never more open than 0660, not even for a moment */
    int rc = uv_pipe_bind(&l->u.pipe, path);
    umask(mask);
    if (rc != 0) {
        return err_set(err, ERR_IO, "cannot bind %s: %s", path, uv_strerror(rc));
    }
    return start(l, err);
}

/* ------------------------------------------------------------------ TCP */

static bool is_loopback(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, addr, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, addr, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

/* Splits HOST:PORT, also [::1]:PORT. */
static int resolve(const char *address, struct sockaddr_storage *out, struct err *err)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    size_t len = colon != NULL ? (size_t)(colon - address) : 0;
    const char *port = len > 0 ? colon + 1 : "";
    if (len >= sizeof host || port[0] == 0 || strspn(port, "0123456789") != strlen(port) ||
        strlen(port) > 5 || atoi(port) > 65535) {
        return err_set(
            err, ERR_CONFIG,
            "'%s' is not an address to listen on (expected HOST:PORT, such as 127.0.0.1:6818)",
            address);
    }
    bool bracketed = address[0] == '[' && address[len - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? len - 2 : len),
             address + (bracketed ? 1 : 0));

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        return err_set(err, ERR_CONFIG, "cannot listen on %s: %s", address, gai_strerror(rc));
    }
    if (!is_loopback(found->ai_addr)) {
        freeaddrinfo(found);
        return err_set(err, ERR_CONFIG,
                       "will not listen on %s: without TLS only loopback addresses are safe (use "
                       "127.0.0.1:PORT, and "
                       "a tunnel between machines)",
                       address);
    }
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

int listener_check_tcp(const char *address, struct err *err)
{
    struct sockaddr_storage addr;
    return resolve(address, &addr, err);
}

static void name_port(struct listener *l)
{
    struct sockaddr_storage bound;
    int len = sizeof bound;
    char host[INET6_ADDRSTRLEN];
    if (uv_tcp_getsockname(&l->u.tcp, (struct sockaddr *)&bound, &len) != 0) {
        return;
    }
    if (bound.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &bound, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
        snprintf(l->name, sizeof l->name, "%s:%u", host, (unsigned)ntohs(in.sin_port));
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, &bound, sizeof in6);
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        snprintf(l->name, sizeof l->name, "[%s]:%u", host, (unsigned)ntohs(in6.sin6_port));
    }
}

int listener_open_tcp(struct listener *l, struct conn_hub *hub, const char *address,
                      struct err *err)
{
    *l = (struct listener){.hub = hub, .kind = TRANSPORT_TCP};
    snprintf(l->name, sizeof l->name, "%s", address);
    struct sockaddr_storage addr;
    TRY(resolve(address, &addr, err));
    uv_tcp_init(hub->loop, &l->u.tcp);
    l->u.handle.data = l;
    l->open = true;
    int rc = uv_tcp_bind(&l->u.tcp, (const struct sockaddr *)&addr, 0);
    if (rc != 0) {
        return err_set(err, ERR_IO, "cannot listen on %s: %s", address, uv_strerror(rc));
    }
    TRY(start(l, err));
    name_port(l);
    return 0;
}

void listener_close(struct listener *l)
{
    if (l->open) {
        l->open = false;
        uv_close(&l->u.handle, NULL); /* libuv unlinks the path of a bound pipe */
    }
}
