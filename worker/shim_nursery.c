#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/log.h"
#include "worker/shim.h"

/* What ps shows. `place` is where the arguments lie; the name must not be longer than the first. */
static void show_as(char *place, const char *name)
{
    memset(place, 0, strlen(place));
    memcpy(place, name, strlen(name));
    prctl(PR_SET_NAME, name);
}

/* The length of the folder's name with its NUL, 0 when the worker has gone, -1 on an error. */
static ssize_t receive(char *dir, size_t bytes, int fds[2])
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec text = {.iov_base = dir, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(SHIM_NURSERY_FD, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) {
        return got < 0 && errno == ECONNRESET ? 0 : got;
    }
    const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (rights == NULL || rights->cmsg_type != SCM_RIGHTS ||
        rights->cmsg_len != CMSG_LEN(2 * sizeof(int))) {
        errno = EPROTO; /* it has no descriptors left, or this is not our worker */
        return -1;
    }
    memcpy(fds, CMSG_DATA(rights), 2 * sizeof(int));
    return got;
}

/* In the child: what a program gets when it is executed with these descriptors in that folder. */
static bool become_shim(char *place, const char *dir, const int fds[2])
{
    show_as(place, "dsshim");
    signal(SIGCHLD, SIG_DFL);
    setsid(); /* it outlives the worker */
    if (chdir(dir) != 0) {
        log_error("cannot enter %s: %s", dir, strerror(errno));
        return false;
    }
    /* Its own stderr: the worker's may be a pipe that nobody reads any more. */
    int log = open(SHIM_LOG_FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || dup2(log, 2) < 0) {
        log_error("cannot open %s/" SHIM_LOG_FILE ": %s", dir, strerror(errno));
        return false;
    }
    close(log);
    if (dup2(fds[1], SHIM_LAUNCH_FD) < 0 || dup2(fds[0], SHIM_LISTEN_FD) < 0) {
        return false;
    }
    close(fds[0]);
    close(fds[1]);
    return true;
}

bool shim_nursery(char *place)
{
    char dir[PATH_MAX];
    int fds[2];
    ssize_t got;
    prctl(PR_SET_NAME, SHIM_NURSERY_NAME);
    signal(SIGCHLD, SIG_IGN); /* how a shim ends is in its status file */
    /* So that received descriptors never have the numbers that a shim's are given. */
    fcntl(SHIM_NURSERY_FD, F_SETFD, FD_CLOEXEC);
    dup2(0, SHIM_LAUNCH_FD);
    while ((got = receive(dir, sizeof dir, fds)) != 0) {
        if (got < 0) {
            if (errno != EINTR) {
                log_error("an order to start a shim was lost: %s", strerror(errno));
            }
            continue;
        }
        pid_t pid = fork();
        if (pid == 0) {
            return become_shim(place, dir, fds);
        }
        if (pid < 0) {
            log_error("cannot fork a shim for %s: %s", dir, strerror(errno));
        }
        close(fds[0]);
        close(fds[1]);
    }
    return false;
}
