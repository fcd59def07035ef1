#include "worker/shim_rank.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/flight.h"

/* vfork: the child runs in our memory until it executes, so it says here what went wrong, and no
 * page table is copied. It calls only system calls and touches nothing else of ours. */
enum child_step { ENTER_CGROUP, RESET_OOM, SET_STREAMS, BECOME_USER, ENTER_WORKDIR, RUN_PROGRAM };
struct child_failure {
    volatile int error;
    volatile enum child_step step;
};

static _Noreturn void child_fails(struct child_failure *failure, enum child_step step)
{
    failure->error = errno;
    failure->step = step;
    _exit(127);
}

static _Noreturn void child_run(const struct rank_start *start, pid_t shim, int out, int err,
                                struct child_failure *failure)
{
    static const struct sigaction default_action = {.sa_handler = SIG_DFL};
    sigset_t none;
    if (start->cgroup_fd >= 0 && write(start->cgroup_fd, "0", 1) != 1) {
        child_fails(failure, ENTER_CGROUP);
    }
    if (start->oom_reset) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && write(fd, "0", 1) != 1) {
            child_fails(failure, RESET_OOM);
        }
    }
    /* Plain system calls: the library's would tell the other threads, and here these are the
     * shim's. */
    if (start->becomes_user && (syscall(SYS_setgroups, start->group_count, start->groups) != 0 ||
                                syscall(SYS_setresgid, start->gid, start->gid, start->gid) != 0 ||
                                syscall(SYS_setresuid, start->uid, start->uid, start->uid) != 0)) {
        child_fails(failure, BECOME_USER);
    }
    /* Without its shim a rank has nobody to stop it. The shim may have died before the first line
     * took effect: the second sees that. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != shim) {
        _exit(127);
    }
    setpgid(0, 0);
    sigaction(SIGPIPE, &default_action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(start->null_fd, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) {
        child_fails(failure, SET_STREAMS);
    }
    close_range(3, UINT_MAX, 0);
    if (chdir(start->workdir) != 0) {
        child_fails(failure, ENTER_WORKDIR);
    }
    execvpe(start->argv[0], start->argv, start->env);
    child_fails(failure, RUN_PROGRAM);
}

/* In a function of its own, so that nothing of the caller is in registers that the child changes.
 */
static __attribute__((noinline)) pid_t fork_and_run(const struct rank_start *start, int out,
                                                    int err, struct child_failure *failure)
{
    pid_t shim = getpid();
    pid_t pid = vfork();
    if (pid == 0) {
        child_run(start, shim, out, err, failure);
    }
    return pid;
}

/* Only our end is non-blocking: that is a property of the open file, and programs do not expect
 * EAGAIN from stdout. */
static int make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) != 0) {
        ends[0] = -1;
        ends[1] = -1;
        return -1;
    }
    return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static void close_both(const int ends[2])
{
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) {
            close(ends[i]);
        }
    }
}

static int explain(uint32_t rank, const struct rank_start *start,
                   const struct child_failure *failure, struct err *err)
{
    const char *why = strerror(failure->error);
    switch (failure->step) {
    case ENTER_CGROUP:
        return err_set(err, ERR_FAILED, "rank %u: cannot enter its control group: %s", rank, why);
    case RESET_OOM:
        return err_set(err, ERR_FAILED, "rank %u: cannot reset oom_score_adj: %s", rank, why);
    case SET_STREAMS:
        return err_set(err, ERR_FAILED, "rank %u: cannot set up its output: %s", rank, why);
    case BECOME_USER:
        return err_set(err, ERR_FAILED, "rank %u: cannot become user %u: %s", rank, start->uid,
                       why);
    case ENTER_WORKDIR:
        return err_set(err, ERR_FAILED,
                       "rank %u: cannot enter the work folder %s: %s (is it there on this node?)",
                       rank, start->workdir, why);
    case RUN_PROGRAM:
        break;
    }
    return err_set(err, ERR_FAILED, "rank %u: cannot run %s: %s (is it there on this node?)", rank,
                   start->argv[0], why);
}

int shim_rank_start(struct shim_rank *r, const struct rank_start *start, struct err *err)
{
    int out[2] = {-1, -1};
    int errors[2] = {-1, -1};
    if (make_pipe(out) != 0 || make_pipe(errors) != 0) {
        int rc = err_set_errno(err, "rank %u: cannot make a pipe for its output", r->rank);
        close_both(out);
        close_both(errors);
        return rc;
    }
    struct child_failure failure = {0, 0};
    pid_t pid = fork_and_run(start, out[1], errors[1], &failure);
    int fork_error = errno;
    close(out[1]);
    close(errors[1]);
    r->out = out[0];
    r->err = errors[0];
    if (pid < 0) {
        errno = fork_error;
        return err_set_errno(err, "rank %u: cannot make a process", r->rank);
    }
    if (failure.error != 0) {
        waitpid(pid, NULL, 0);
        return explain(r->rank, start, &failure, err);
    }
    r->pid = pid;
    return 0;
}

void shim_rank_fini(struct shim_rank *r)
{
    close_both((int[2]){r->out, r->err});
    r->out = -1;
    r->err = -1;
    log_file_fini(&r->out_log);
    log_file_fini(&r->err_log);
}

static void remember(struct shim_rank *r, const char *data, size_t len)
{
    if (len >= LAST_WORDS_BYTES) {
        data += len - LAST_WORDS_BYTES;
        len = LAST_WORDS_BYTES;
    }
    size_t keep = r->last_words_bytes;
    if (keep + len > LAST_WORDS_BYTES) {
        keep = LAST_WORDS_BYTES - len;
    }
    memmove(r->last_words, r->last_words + r->last_words_bytes - keep, keep);
    memcpy(r->last_words + keep, data, len);
    r->last_words_bytes = keep + len;
}

static void drain(struct shim_rank *r, int *fd, int turns)
{
    static char data[65536];
    for (int turn = 0; turn < turns && *fd >= 0; turn++) {
        ssize_t got = read(*fd, data, sizeof data);
        if (got > 0) {
            log_file_write(fd == &r->out ? &r->out_log : &r->err_log, data, (size_t)got);
            if (fd == &r->err) {
                remember(r, data, (size_t)got);
            }
        } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            close(*fd);
            *fd = -1;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

void shim_rank_drain(struct shim_rank *r, int turns)
{
    drain(r, &r->out, turns);
    drain(r, &r->err, turns);
}

static void remember_flight(struct shim_rank *r, const char *dir)
{
    struct flight_file *file;
    struct buf text = {0};
    struct timespec now;
    char *path = flight_path(dir, r->rank);
    if (flight_read(&file, path, NULL) == 0) {
        clock_gettime(CLOCK_BOOTTIME, &now);
        flight_last(file, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, &text);
        free(file);
    }
    if (text.len > 0) { /* in its last line, which is what people are shown */
        bool after_line = r->last_words_bytes > 0;
        if (after_line && r->last_words[r->last_words_bytes - 1] == '\n') {
            r->last_words_bytes--;
        }
        buf_append_str(&text, after_line ? ")\n" : "\n");
        remember(r, " (", after_line ? 2 : 0);
        remember(r, (const char *)text.data, text.len);
    }
    buf_fini(&text);
    free(path);
}

void shim_rank_exited(struct shim_rank *r, int status, int64_t now_ms, const char *flight_dir)
{
    r->pid = 0;
    r->exited = true;
    r->at_ms = now_ms;
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    r->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    shim_rank_drain(r, SHIM_DRAIN_ALL);
    if (flight_dir != NULL && (r->code != 0 || r->signal != 0)) {
        remember_flight(r, flight_dir);
    }
}

void shim_rank_signal(const struct shim_rank *r, int signal)
{
    if (r->pid > 0 && kill(-r->pid, signal) != 0) {
        kill(r->pid, signal);
    }
}
