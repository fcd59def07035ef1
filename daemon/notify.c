#include "daemon/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof addr.sun_path) {
        return;
    }
    size_t len = strlen(path);
    memcpy(addr.sun_path, path, len);
    if (path[0] == '@') {
        addr.sun_path[0] = 0; /* the abstract name space */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        ssize_t ignored = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                                 (const struct sockaddr *)&addr,
                                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
        (void)ignored;
        close(fd);
    }
}

void notify_ready(void)
{
    notify("READY=1");
}

void notify_stopping(void)
{
    notify("STOPPING=1");
}

void notify_watchdog(void)
{
    if (getenv("WATCHDOG_USEC") != NULL) {
        notify("WATCHDOG=1");
    }
}
