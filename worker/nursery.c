#include "worker/nursery.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/shim.h"

extern char **environ;

void nursery_init(struct nursery *n, const char *program)
{
    *n = (struct nursery){.program = program, .fd = -1};
    pthread_mutex_init(&n->lock, NULL);
}

void nursery_fini(struct nursery *n)
{
    if (n->program == NULL) {
        return;
    }
    if (n->fd >= 0) {
        close(n->fd);
    }
    pthread_mutex_destroy(&n->lock);
    *n = (struct nursery){.fd = -1};
}

/* posix_spawn and not fork: it copies no page table, and says why the program does not run. */
static int spawn(const struct nursery *n, int socket)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    /* Its own session: Ctrl-C is for the worker. */
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_adddup2(&actions, socket, SHIM_NURSERY_FD);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_addclosefrom_np(&actions, SHIM_NURSERY_FD + 1);
    char name[] = SHIM_NURSERY_NAME;
    char *argv[] = {name, NULL};
    pid_t pid;
    int rc = posix_spawn(&pid, n->program, &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return rc;
}

static int start(struct nursery *n, struct err *err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return err_set_errno(err, "cannot make a socket for shims");
    }
    int rc = spawn(n, ends[1]);
    close(ends[1]);
    if (rc != 0) {
        close(ends[0]);
        return err_set(err, ERR_FAILED, "cannot run %s: %s (is it installed beside dsworkerd?)",
                       n->program, strerror(rc));
    }
    n->fd = ends[0];
    return 0;
}

static int send_launch(const struct nursery *n, const char *dir, int listener, int launch)
{
    int fds[2] = {listener, launch};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control = {0};
    struct iovec text = {.iov_base = (char *)(uintptr_t)dir, .iov_len = strlen(dir) + 1};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    ssize_t sent;
    do {
        sent = sendmsg(n->fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

int nursery_launch(struct nursery *n, const char *dir, int listener, int launch, struct err *err)
{
    int rc = 0;
    pthread_mutex_lock(&n->lock);
    for (int tries = 0; tries < 2; tries++) {
        if (n->fd < 0) {
            rc = start(n, err);
        }
        if (rc != 0 || send_launch(n, dir, listener, launch) == 0) {
            break;
        }
        /* Somebody killed it: another one is as good. */
        rc = tries == 0 ? 0 : err_set_errno(err, "cannot reach the process that starts shims");
        close(n->fd);
        n->fd = -1;
    }
    pthread_mutex_unlock(&n->lock);
    return rc;
}
