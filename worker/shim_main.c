/* One thread, one poll. Events change struct shim; after each round what changed is made durable,
 * then told. When the last rank is gone, what is left of its tree is killed, the end is recorded,
 * and the shim goes: everything it knows is in `status` then. */
#include "worker/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/cgroup.h"
#include "worker/proctree.h"

#define KILL_EVERY_MS  100
#define STUCK_AFTER_MS 10000
#define STUCK_EVERY_MS 2000
#define FINISH_MS      2000

/* ---- stopping */

static void kill_tree(struct shim *s)
{
    int64_t now = clock_boot_ms();
    if (s->killing_since_ms == 0) {
        s->killing_since_ms = now;
    }
    if (s->launch->cgroup != NULL) {
        cgroup_kill(s->launch->cgroup);
    }
    if (proctree_kill(getpid()) < 0) {
        for (uint32_t i = 0; i < s->rank_count; i++) {
            shim_rank_signal(&s->ranks[i], SIGKILL);
        }
    }
    s->next_kill_ms = now + KILL_EVERY_MS;
    if (now - s->killing_since_ms >= STUCK_AFTER_MS) {
        struct buf text = {0};
        buf_append_str(&text, "processes survive KILL: ");
        proctree_describe(getpid(), &text);
        free(s->stuck);
        s->stuck = mem_strdup(buf_cstr(&text));
        s->changed = true;
        s->next_kill_ms = now + STUCK_EVERY_MS;
        buf_fini(&text);
    }
}

void shim_stop(struct shim *s, uint64_t grace_ms, const char *reason)
{
    int64_t now = clock_boot_ms();
    int64_t kill_at = grace_ms > INT32_MAX ? now + INT32_MAX : now + (int64_t)grace_ms;
    if (s->stopping) {
        s->kill_at_ms = kill_at < s->kill_at_ms ? kill_at : s->kill_at_ms;
        return;
    }
    log_info("stopping, KILL in %" PRIu64 " ms: %s", grace_ms, reason);
    s->stopping = true;
    s->kill_at_ms = kill_at;
    for (uint32_t i = 0; grace_ms > 0 && i < s->rank_count; i++) {
        shim_rank_signal(&s->ranks[i], SIGTERM);
    }
}

/* ---- children */

static const char *flight_dir(const struct shim *s)
{
    static const char name[] = "DS_FLIGHT_DIR=";
    for (size_t i = 0; i < s->launch->n_env; i++) {
        if (strncmp(s->launch->env[i], name, sizeof name - 1) == 0) {
            return s->launch->env[i] + sizeof name - 1;
        }
    }
    return NULL;
}

/* Returns true when no child is left; as we are the subreaper, then nothing of the tree is. */
static bool reap(struct shim *s)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0) {
            return pid < 0 && errno == ECHILD;
        }
        for (uint32_t i = 0; i < s->rank_count; i++) {
            if (s->ranks[i].pid == pid) {
                shim_rank_exited(&s->ranks[i], status, clock_wall_ms(), flight_dir(s));
                s->alive--;
                s->changed = true;
                s->exits_changed = true;
                break;
            }
        }
    }
}

static void finish(struct shim *s)
{
    for (uint32_t i = 0; i < s->rank_count; i++) {
        shim_rank_drain(&s->ranks[i], SHIM_DRAIN_ALL);
        shim_rank_fini(&s->ranks[i]);
    }
    if (s->launch->cgroup != NULL) {
        cgroup_remove(s->launch->cgroup);
    }
    s->phase = 3;
    s->ended_at_ms = clock_wall_ms();
    free(s->stuck);
    s->stuck = NULL;
    s->exits_changed = true;
    shim_tell(s);
    shim_serve_finish(s, FINISH_MS);
}

/* Returns true when all is over. */
static bool advance(struct shim *s)
{
    int64_t now = clock_boot_ms();
    int64_t orphan_ms = (int64_t)s->launch->orphan_timeout_ms;
    if (orphan_ms > 0 && !s->stopping && !shim_has_client(s) &&
        now - s->orphan_since_ms >= orphan_ms) {
        shim_stop(s, SHIM_GRACE_MS, "no worker for longer than orphan_timeout");
    }
    bool childless = reap(s);
    if (s->alive == 0 && childless) {
        finish(s);
        return true;
    }
    if ((s->alive == 0 || (s->stopping && now >= s->kill_at_ms)) && now >= s->next_kill_ms) {
        kill_tree(s);
    }
    if (s->changed) {
        shim_tell(s);
    }
    return false;
}

static int poll_timeout(const struct shim *s)
{
    int64_t at = INT64_MAX;
    if (s->alive == 0 || s->killing_since_ms != 0) {
        at = s->next_kill_ms;
    } else if (s->stopping) {
        at = s->kill_at_ms;
    } else if (s->launch->orphan_timeout_ms > 0 && !shim_has_client(s)) {
        at = s->orphan_since_ms + (int64_t)s->launch->orphan_timeout_ms;
    }
    if (at == INT64_MAX) {
        return -1;
    }
    int64_t left = at - clock_boot_ms();
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static void take_signals(struct shim *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGCHLD) {
            shim_stop(s, SHIM_GRACE_MS, "the shim got a signal");
        }
    }
}

static void run(struct shim *s)
{
    struct pollfd *polls = mem_alloc_array(2 + SHIM_CLIENTS_MAX + 2 * s->rank_count, sizeof *polls);
    while (!advance(s)) {
        nfds_t n = 0;
        polls[n++] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
        polls[n++] = (struct pollfd){.fd = SHIM_LISTEN_FD, .events = POLLIN};
        for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
            const struct shim_client *c = &s->clients[i];
            short events = c->out.len > 0 ? POLLIN | POLLOUT : POLLIN;
            polls[n++] = (struct pollfd){.fd = c->fd, .events = events};
        }
        for (uint32_t i = 0; i < s->rank_count; i++) {
            polls[n++] = (struct pollfd){.fd = s->ranks[i].out, .events = POLLIN};
            polls[n++] = (struct pollfd){.fd = s->ranks[i].err, .events = POLLIN};
        }
        if (poll(polls, n, poll_timeout(s)) <= 0) {
            continue;
        }
        if (polls[0].revents != 0) {
            take_signals(s);
        }
        for (int i = 0; i < SHIM_CLIENTS_MAX; i++) {
            if (polls[2 + i].revents != 0) {
                shim_serve_client(s, &s->clients[i], polls[2 + i].revents);
            }
        }
        if (polls[1].revents != 0) {
            shim_serve_accept(s);
        }
        for (uint32_t i = 0; i < s->rank_count; i++) {
            const struct pollfd *p = &polls[2 + SHIM_CLIENTS_MAX + 2 * i];
            if (p[0].revents != 0 || p[1].revents != 0) {
                shim_rank_drain(&s->ranks[i], SHIM_DRAIN_SOME);
            }
        }
    }
    free(polls);
}

/* ---- starting */

static bool is_protected_from_oom(void)
{
    struct buf text = {0};
    bool negative =
        file_read("/proc/self/oom_score_adj", 64, &text, NULL) == 0 && atoi(buf_cstr(&text)) < 0;
    buf_fini(&text);
    return negative;
}

static uint64_t own_start_ticks(void)
{
    struct buf text = {0};
    uint64_t ticks = 0;
    if (file_read("/proc/self/stat", 4096, &text, NULL) == 0) {
        const char *p = strrchr(buf_cstr(&text), ')');
        for (int field = 2; p != NULL && field < 22; field++) {
            p = strchr(p + 1, ' ');
        }
        ticks = p != NULL ? strtoull(p + 1, NULL, 10) : 0;
    }
    buf_fini(&text);
    return ticks;
}

static const char *env_value(const Ds__ShimLaunch *launch, const char *name)
{
    size_t len = strlen(name);
    const char *value = NULL;
    for (size_t i = 0; i < launch->n_env; i++) {
        if (strncmp(launch->env[i], name, len) == 0 && launch->env[i][len] == '=') {
            value = launch->env[i] + len + 1;
        }
    }
    return value;
}

static int start_ranks(struct shim *s, struct err *err)
{
    const Ds__ShimLaunch *l = s->launch;
    char **argv = mem_alloc_array(l->n_argv + 1, sizeof *argv);
    char **env = mem_alloc_array(l->n_env + 3, sizeof *env);
    memcpy(argv, l->argv, l->n_argv * sizeof *argv);
    memcpy(env, l->env, l->n_env * sizeof *env);
    struct rank_start start = {
        .argv = argv,
        .env = env,
        .workdir = l->workdir,
        .null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .cgroup_fd = -1,
        .oom_reset = is_protected_from_oom(),
    };
    if (l->has_uid) {
        start.becomes_user = true;
        start.uid = l->uid;
        start.gid = l->gid;
        start.groups = l->groups;
        start.group_count = l->n_groups;
    }
    if (l->cgroup != NULL && cgroup_make(l->cgroup)) {
        start.cgroup_fd = cgroup_open_procs(l->cgroup);
    }
    /* execvpe looks in our PATH. */
    const char *path = env_value(l, "PATH");
    if (path != NULL) {
        setenv("PATH", path, 1);
    }
    int rc = 0;
    for (uint32_t i = 0; i < s->rank_count && rc == 0; i++) {
        struct shim_rank *r = &s->ranks[i];
        env[l->n_env] = mem_printf("RANK=%" PRIu32, r->rank);
        env[l->n_env + 1] = mem_printf("LOCAL_RANK=%" PRIu32, i);
        rc = shim_rank_start(r, &start, err);
        s->alive += rc == 0;
        free(env[l->n_env]);
        free(env[l->n_env + 1]);
    }
    if (start.null_fd >= 0) {
        close(start.null_fd);
    }
    if (start.cgroup_fd >= 0) {
        close(start.cgroup_fd);
    }
    free(argv);
    free(env);
    return rc;
}

static void init_ranks(struct shim *s)
{
    s->rank_count = s->launch->rank_count;
    s->ranks = mem_alloc_array(s->rank_count, sizeof *s->ranks);
    for (uint32_t i = 0; i < s->rank_count; i++) {
        struct shim_rank *r = &s->ranks[i];
        char name[LOG_NAME_BYTES];
        r->rank = s->launch->rank_first + i;
        r->out = -1;
        r->err = -1;
        log_file_name(name, r->rank, 0);
        log_file_init(&r->out_log, s->launch->log_dir, name, s->launch->log_file_bytes,
                      s->launch->log_files);
        log_file_name(name, r->rank, 1);
        log_file_init(&r->err_log, s->launch->log_dir, name, s->launch->log_file_bytes,
                      s->launch->log_files);
    }
}

static int read_launch(struct shim *s, struct err *err)
{
    struct buf data = {0};
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", SHIM_LAUNCH_FD);
    int rc = file_read(path, SHIM_LAUNCH_BYTES_MAX, &data, err);
    close(SHIM_LAUNCH_FD);
    if (rc == 0) {
        s->launch = ds__shim_launch__unpack(NULL, data.len, data.data);
    }
    buf_fini(&data);
    if (rc == 0 && (s->launch == NULL || s->launch->n_argv == 0 || s->launch->rank_count == 0)) {
        rc = err_set(err, ERR_CORRUPT, "what the worker gave is not a launch message");
    }
    return rc;
}

static void take_over_signals(struct shim *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    struct shim s = {0};
    struct err err = {0};
    log_init("dsshim", LOG_INFO);
    if (argc != 1 || strcmp(argv[0], SHIM_NURSERY_NAME) != 0 ||
        fcntl(SHIM_NURSERY_FD, F_GETFD) < 0) {
        fprintf(stderr, "usage: %s is started by dsworkerd\n", argv[0]);
        return 2;
    }
    if (!shim_nursery(argv[0])) {
        return 0;
    }
    log_init("dsshim", LOG_INFO); /* to another stderr */
    if (read_launch(&s, &err) != 0) {
        log_error("%s", err.text);
        return err_exit_status(err.code);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    take_over_signals(&s);
    shim_serve_init(&s);
    s.start_ticks = own_start_ticks();
    init_ranks(&s);
    if (start_ranks(&s, &s.error) == 0) {
        s.phase = 2;
        s.started_at_ms = clock_wall_ms();
        s.changed = true;
    } else {
        shim_stop(&s, 0, s.error.text);
        s.phase = 1;
    }
    run(&s);
    free(s.ranks);
    ds__shim_launch__free_unpacked(s.launch, NULL);
    return 0;
}
