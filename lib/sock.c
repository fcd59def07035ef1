#include "lib/sock.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"

int sock_wait(int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        int64_t left = -1;
        if (deadline_ms >= 0) {
            left = deadline_ms - clock_boot_ms();
            left = left < 0 ? 0 : left > INT_MAX ? INT_MAX : left;
        }
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, (int)left);
        if (n > 0) {
            return p.revents;
        }
        if (n == 0 && deadline_ms >= 0 && clock_boot_ms() >= deadline_ms) {
            return 0;
        }
    }
}

/* 0 or an errno. */
static int finish_connect(int fd, const struct sockaddr *addr, socklen_t bytes, int64_t deadline_ms)
{
    if (connect(fd, addr, bytes) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS && errno != EAGAIN && errno != EINTR) {
        return errno;
    }
    if (errno == EAGAIN) { /* a Unix socket whose backlog is full */
        return EAGAIN;
    }
    if (sock_wait(fd, POLLOUT, deadline_ms) == 0) {
        return ETIMEDOUT;
    }
    int result = 0;
    socklen_t result_bytes = sizeof result;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &result_bytes);
    return result;
}

static int try_connect(int *fd, int family, const struct sockaddr *addr, socklen_t bytes,
                       int64_t deadline_ms)
{
    *fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return errno;
    }
    int failure;
    while ((failure = finish_connect(*fd, addr, bytes, deadline_ms)) == EAGAIN &&
           (deadline_ms < 0 || clock_boot_ms() < deadline_ms)) {
        clock_sleep_ms(10);
    }
    if (failure != 0) {
        close(*fd);
        *fd = -1;
    }
    return failure;
}

static int connect_unix(int *fd, const char *path, int64_t deadline_ms, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        return err_set(err, ERR_USAGE, "socket path over %zu bytes: %s (use a shorter folder)",
                       sizeof addr.sun_path - 1, path);
    }
    strcpy(addr.sun_path, path);
    int failure =
        try_connect(fd, AF_UNIX, (const struct sockaddr *)&addr, sizeof addr, deadline_ms);
    if (failure == EACCES || failure == EPERM) {
        return err_set(err, ERR_DENIED, "cannot connect to %s: %s", path, strerror(failure));
    }
    if (failure != 0) {
        return err_set(err, ERR_UNREACHABLE, "cannot connect to %s: %s (is it running?)", path,
                       failure == ENOENT ? "no such socket" : strerror(failure));
    }
    return 0;
}

/* host:port, [host]:port. *port points into address. */
static int split_address(const char *address, char *host, size_t host_bytes, const char **port,
                         struct err *err)
{
    const char *colon = strrchr(address, ':');
    const char *start = address;
    const char *end = colon;
    if (colon != NULL && colon > address + 1 && address[0] == '[' && colon[-1] == ']') {
        start++;
        end--;
    }
    if (colon == NULL || end == start || (size_t)(end - start) >= host_bytes) {
        return err_set(err, ERR_USAGE, "%s is no address (a path with a '/', or host:port)",
                       address);
    }
    char *rest;
    unsigned long number = strtoul(colon + 1, &rest, 10);
    if (colon[1] < '0' || colon[1] > '9' || *rest != 0 || number == 0 || number > 65535) {
        return err_set(err, ERR_USAGE, "%s: the port is a number from 1 to 65535", address);
    }
    snprintf(host, host_bytes, "%.*s", (int)(end - start), start);
    *port = colon + 1;
    return 0;
}

static int connect_tcp(int *fd, const char *address, int64_t deadline_ms, struct err *err)
{
    char host[256];
    const char *port = NULL;
    TRY(split_address(address, host, sizeof host, &port, err));
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        return err_set(err, ERR_UNREACHABLE, "cannot find host %s: %s", host,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    }
    int failure = EHOSTUNREACH;
    for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
        failure = try_connect(fd, a->ai_family, a->ai_addr, a->ai_addrlen, deadline_ms);
        if (failure == 0) {
            int on = 1;
            setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            break;
        }
    }
    freeaddrinfo(found);
    if (failure != 0) {
        return err_set(err, ERR_UNREACHABLE, "cannot connect to %s: %s (is it running?)", address,
                       strerror(failure));
    }
    return 0;
}

int sock_connect(int *fd, const char *address, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = timeout_ms < 0 ? -1 : clock_boot_ms() + timeout_ms;
    *fd = -1;
    return strchr(address, '/') != NULL ? connect_unix(fd, address, deadline_ms, err)
                                        : connect_tcp(fd, address, deadline_ms, err);
}
