/* `dstrain run` without a worker: N ranks on this machine as children, and a small event loop that
 * is their coordinator (launcher_coord.c), forwards their output, and sees to it that none outlives
 * the others or the launcher:
 *
 *   a rank fails           -> TERM to the rest, KILL after a grace; its status becomes ours
 *   Ctrl-C, TERM           -> TERM to all: they finish the step, save and leave with 80
 *   Ctrl-C again           -> KILL
 *   the launcher is killed -> the kernel kills them (PR_SET_PDEATHSIG)
 *
 * Rank 0 has the launcher's own stdout and stderr (step lines, progress bar); what the others say
 * appears on stderr behind
 * "[rank N] ". */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "report/run_report.h"
#include "trainer/attempt_log.h"
#include "trainer/backend.h"
#include "trainer/launcher_coord.h"
#include "trainer/run.h"
#include "trainer/run_dir.h"
#include "trainer/run_facts.h"
#include "trainer/spec_file.h"
#include "trainer/watch.h"

#define RANKS_MAX     1024
#define KILL_AFTER_MS 10000 /* from the first failure until the others are killed */

extern char **environ;

struct rank {
    pid_t pid;  /* 0: ended */
    int output; /* -1 for rank 0 and after the end */
    struct buf line;
    int status; /* contract's exit status, 128 + signal when killed */
};
struct launcher {
    struct jobspec spec;
    struct run_dir dir;
    struct coord *coord;
    char *scratch; /* folder of the report socket: its path must be short */
    char *socket, *spec_path, *resume_dir;
    struct rank *ranks;
    uint32_t count, alive;
    int signal_fd;
    int asked;          /* signals to stop so far */
    bool killed;        /* KILL was sent to all */
    int64_t kill_at_ms; /* 0: nothing to kill */
    int first_status;   /* of the first rank that failed for a reason of its own */
    uint32_t first_rank;
    struct err fatal; /* the launcher's own failure */
};

/* ---- before the start */

static int write_spec(struct launcher *l, struct err *err)
{
    char *json = jobspec_to_json(&l->spec);
    l->spec_path = mem_printf("%s/spec.json", l->dir.path);
    int rc = file_write_durable(l->spec_path, json, strlen(json), 0666, err);
    free(json);
    return rc;
}

static int choose_resume(struct launcher *l, const char *resume, struct err *err)
{
    if (resume == NULL) {
        if (l->dir.count > 0) {
            return err_set(err, ERR_USAGE,
                           "%s has checkpoints of this run, the newest of step %" PRIu64
                           " (--resume auto to go on from there, --out DIR for another run)",
                           l->dir.path, l->dir.ckpts[l->dir.count - 1].step);
        }
        return 0;
    }
    if (strcmp(resume, "auto") != 0) {
        char absolute[PATH_MAX];
        if (realpath(resume, absolute) == NULL) {
            return err_set_errno(err, "cannot resume from %s", resume);
        }
        l->resume_dir = mem_strdup(absolute);
        return 0;
    }
    l->resume_dir = mem_strdup(run_dir_newest(&l->dir));
    if (l->resume_dir == NULL && l->dir.count > 0) {
        return err_set(err, ERR_CORRUPT, "none of the %zu checkpoints in %s is whole", l->dir.count,
                       l->dir.path);
    }
    return 0;
}

static void on_commit(void *ctx, uint64_t step, uint64_t bytes)
{
    struct launcher *l = ctx;
    const struct guard_spec *guard = &l->spec.train.guard;
    run_dir_committed(&l->dir, step, l->spec.checkpoint.keep, guard->enabled ? guard->rollback : 0);
    log_info("checkpoint of step %" PRIu64 " committed: %" PRIu64 " bytes in %s/step-%010" PRIu64,
             step, bytes, l->dir.ckpt_dir, step);
}

static int start_coord(struct launcher *l, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    l->scratch = mem_printf("%s/dstrain-XXXXXX", tmp != NULL && tmp[0] != 0 ? tmp : "/tmp");
    if (mkdtemp(l->scratch) == NULL) {
        int rc = err_set_errno(err, "cannot create the folder %s", l->scratch);
        free(l->scratch);
        l->scratch = NULL;
        return rc;
    }
    l->socket = mem_printf("%s/report.sock", l->scratch);
    char *metrics = mem_printf("%s/metrics.jsonl", l->dir.path);
    const struct coord_options options = {.socket_path = l->socket,
                                          .job = 0,
                                          .epoch = l->dir.epoch,
                                          .world = l->count,
                                          .ckpt_dir = l->dir.ckpt_dir,
                                          .metrics_path = metrics,
                                          .committed = on_commit,
                                          .ctx = l};
    int rc = coord_create(&l->coord, &options, err);
    free(metrics);
    return rc;
}

/* From here on signals are for the loop; before, Ctrl-C simply ends the launcher. */
static int block_signals(struct launcher *l, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    l->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return l->signal_fd >= 0 ? 0 : err_set_errno(err, "cannot create a signalfd");
}

/* The spec as it is given fixes the number of ranks, or --ranks puts that many on one node. */
static int load_spec(struct launcher *l, const struct run_options *options, struct err *err)
{
    struct model_config config;
    char gpus[64];
    const char **set = mem_alloc_array(options->set_count + 2, sizeof *set);
    size_t n = 0;
    for (; n < options->set_count; n++) {
        set[n] = options->set[n];
    }
    if (options->ranks > 0) {
        snprintf(gpus, sizeof gpus, "gpus_per_node=%u", options->ranks);
        set[n++] = "nodes=1";
        set[n++] = gpus;
    }
    int rc = spec_file_load(&l->spec, &config, options->spec_path, set, n, err);
    free(set);
    TRY(rc);
    uint64_t count = (uint64_t)l->spec.nodes_min * l->spec.gpus_per_node;
    if (count > RANKS_MAX) {
        return err_set(err, ERR_USAGE,
                       "the job has %" PRIu64
                       " ranks, on one machine there may be %d (--ranks N for fewer)",
                       count, RANKS_MAX);
    }
    l->count = (uint32_t)count;
    return backend_check(l->spec.train.backend, l->count, err);
}

static char *flight_folder(const struct launcher *l)
{
    return mem_printf("%s/flight", l->dir.path);
}

/* Empty: what another start left is of other ranks. */
static int make_flight_folder(const struct launcher *l, struct err *err)
{
    char *path = flight_folder(l);
    int rc = file_remove_tree(path, err);
    if (rc == 0 && mkdir(path, 0755) != 0) {
        rc = err_set_errno(err, "cannot make %s", path);
    }
    free(path);
    return rc;
}

static int prepare(struct launcher *l, const struct run_options *options, struct err *err)
{
    TRY(load_spec(l, options, err));
    char *out =
        options->out != NULL ? mem_strdup(options->out) : mem_printf("runs/%s", l->spec.name);
    const char *root = l->spec.checkpoint.dir;
    char *ckpt_root = root != NULL ? mem_printf("%s/%s", root, l->spec.name) : NULL;
    int rc = run_dir_open(&l->dir, out, ckpt_root, err);
    free(out);
    free(ckpt_root);
    TRY(rc);
    TRY(make_flight_folder(l, err));
    TRY(choose_resume(l, options->resume, err));
    TRY(write_spec(l, err));
    TRY(block_signals(l, err));
    return start_coord(l, err);
}

/* ---- ranks */

static void set_number(const char *name, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    setenv(name, text, 1);
}

/* In the child: becomes the rank. Does not return. */
static void exec_rank(const struct launcher *l, uint32_t rank, int output)
{
    /* A TERM that comes before the rank can handle it waits until it can (run.c unblocks it). */
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_number("DS_JOB_ID", 0);
    set_number("DS_ATTEMPT", l->dir.epoch);
    set_number("DS_EPOCH", l->dir.epoch);
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
    set_number("WORLD_SIZE", l->count);
    set_number("LOCAL_WORLD_SIZE", l->count);
    set_number("NODE_RANK", 0);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    if (getenv("OMP_NUM_THREADS") == NULL) { /* share out the machine */
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        set_number("OMP_NUM_THREADS", cores > (long)l->count ? (uint64_t)cores / l->count : 1);
    }
    setenv("DS_CHECKPOINT_DIR", l->dir.ckpt_dir, 1);
    char *tb_dir = mem_printf("%s/tb", l->dir.path);
    setenv("DS_TENSORBOARD_DIR", tb_dir, 1);
    free(tb_dir);
    char *flight_dir = flight_folder(l);
    setenv("DS_FLIGHT_DIR", flight_dir, 1);
    free(flight_dir);
    setenv("DS_REPORT_SOCKET", l->socket, 1);
    unsetenv("DS_RESUME_PATH");
    if (l->resume_dir != NULL) {
        setenv("DS_RESUME_PATH", l->resume_dir, 1);
    }
    if (output >= 0) {
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
    }
    char *const argv[] = {(char *)"dstrain", (char *)"run", l->spec_path, NULL};
    execve("/proc/self/exe", argv, environ);
    dprintf(STDERR_FILENO, "dstrain: cannot start itself again: %s\n", strerror(errno));
    _exit(71);
}

static int start_rank(struct launcher *l, uint32_t rank, struct err *err)
{
    int pipe_fd[2] = {-1, -1};
    if (rank > 0 && pipe2(pipe_fd, O_CLOEXEC) != 0) {
        return err_set_errno(err, "cannot create a pipe");
    }
    pid_t launcher = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != launcher) {
            _exit(71); /* it died before the line above */
        }
        exec_rank(l, rank, pipe_fd[1]);
    }
    if (pipe_fd[1] >= 0) {
        close(pipe_fd[1]);
    }
    if (pid < 0) {
        close(pipe_fd[0]);
        return err_set_errno(err, "cannot start rank %u", rank);
    }
    if (pipe_fd[0] >= 0) {
        fcntl(pipe_fd[0], F_SETFL, O_NONBLOCK);
    }
    l->ranks[rank] = (struct rank){.pid = pid, .output = pipe_fd[0]};
    l->alive++;
    return 0;
}

static void signal_all(const struct launcher *l, int sig)
{
    for (uint32_t r = 0; r < l->count; r++) {
        if (l->ranks[r].pid > 0) {
            kill(l->ranks[r].pid, sig);
        }
    }
}

static void kill_all(struct launcher *l)
{
    l->killed = true;
    signal_all(l, SIGKILL);
}

/* Others are to go, at the latest when the grace is over. */
static void end_the_rest(struct launcher *l)
{
    if (l->kill_at_ms == 0) {
        signal_all(l, SIGTERM);
        l->kill_at_ms = clock_boot_ms() + KILL_AFTER_MS;
    }
}

static void print_line(const struct launcher *l, uint32_t rank, const uint8_t *text, size_t len)
{
    (void)l;
    struct buf line = {0};
    buf_printf(&line, "[rank %u] ", rank);
    buf_append(&line, text, len);
    buf_append_str(&line, "\n");
    file_write_all(STDERR_FILENO, line.data, line.len, NULL);
    buf_fini(&line);
}

static void forward_output(struct launcher *l, uint32_t rank)
{
    struct rank *r = &l->ranks[rank];
    for (;;) {
        ssize_t got = read(r->output, buf_reserve(&r->line, 4096), 4096);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got > 0) {
            r->line.len += (size_t)got;
        }
        const uint8_t *end;
        while (r->line.len > 0 && (end = memchr(r->line.data, '\n', r->line.len)) != NULL) {
            size_t len = (size_t)(end - r->line.data);
            print_line(l, rank, r->line.data, len);
            buf_consume(&r->line, len + 1);
        }
        if (got <= 0) {
            if (r->line.len > 0) {
                print_line(l, rank, r->line.data, r->line.len);
            }
            buf_fini(&r->line);
            close(r->output);
            r->output = -1;
            return;
        }
    }
}

/* A status that says what went wrong, as opposed to "a peer went away" or our own KILL. */
static bool is_a_cause(const struct launcher *l, int status)
{
    return status != 0 && status != 80 && status != 85 && !(l->killed && status == 128 + SIGKILL);
}

static void reap(struct launcher *l)
{
    int wait_status;
    pid_t pid;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        uint32_t rank = 0;
        while (rank < l->count && l->ranks[rank].pid != pid) {
            rank++;
        }
        if (rank == l->count) {
            continue;
        }
        struct rank *r = &l->ranks[rank];
        r->status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
        r->pid = 0;
        l->alive--;
        if (l->first_status == 0 && is_a_cause(l, r->status)) {
            l->first_status = r->status;
            l->first_rank = rank;
        }
        if (r->status != 0 && r->status != 80) {
            end_the_rest(l);
        }
    }
}

/* ---- the loop */

static void on_signal(struct launcher *l)
{
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            reap(l);
            continue;
        }
        l->asked++;
        if (l->asked == 1) {
            log_info("%s: saving and leaving; once more to give up the last steps",
                     info.ssi_signo == SIGINT ? "interrupted" : "asked to stop");
            signal_all(l, SIGTERM);
        } else {
            kill_all(l);
        }
    }
}

static int poll_timeout(const struct launcher *l)
{
    int timeout = coord_poll_timeout(l->coord);
    if (l->kill_at_ms != 0) {
        int64_t left = l->kill_at_ms - clock_boot_ms();
        left = left > 0 ? left : 0;
        timeout = timeout < 0 || left < timeout ? (int)left : timeout;
    }
    return timeout;
}

static void turn(struct launcher *l, struct pollfd *fds)
{
    size_t n = 0;
    fds[n++] = (struct pollfd){.fd = l->signal_fd, .events = POLLIN};
    for (uint32_t r = 0; r < l->count; r++) {
        if (l->ranks[r].output >= 0) {
            fds[n++] = (struct pollfd){.fd = l->ranks[r].output, .events = POLLIN};
        }
    }
    size_t coord_from = n;
    n += coord_poll_fill(l->coord, fds + n);
    if (poll(fds, n, poll_timeout(l)) < 0) {
        return; /* EINTR: look again */
    }
    if (coord_handle(l->coord, fds + coord_from, n - coord_from, &l->fatal) != 0) {
        end_the_rest(l);
    }
    for (uint32_t r = 0; r < l->count; r++) {
        if (l->ranks[r].output >= 0) {
            forward_output(l, r);
        }
    }
    on_signal(l);
    if (l->kill_at_ms != 0 && clock_boot_ms() >= l->kill_at_ms) {
        kill_all(l);
        l->kill_at_ms = clock_boot_ms() + KILL_AFTER_MS;
    }
}

static void run_ranks(struct launcher *l, struct err *err)
{
    struct pollfd *fds = mem_alloc_array(1 + l->count + coord_poll_max(l->coord), sizeof *fds);
    for (uint32_t r = 0; r < l->count && l->fatal.code == 0; r++) {
        if (start_rank(l, r, &l->fatal) != 0) {
            end_the_rest(l);
        }
    }
    while (l->alive > 0) {
        turn(l, fds);
    }
    for (uint32_t r = 0; r < l->count; r++) { /* last words */
        if (l->ranks[r].output >= 0) {
            forward_output(l, r);
        }
    }
    free(fds);
    if (l->fatal.code != 0) {
        *err = l->fatal;
    }
}

/* What the whole run ends with. */
static int outcome(const struct launcher *l, struct err *err)
{
    bool all_done = true;
    bool lost_peer = false;
    for (uint32_t r = 0; r < l->count; r++) {
        all_done = all_done && l->ranks[r].status == 0;
        lost_peer = lost_peer || l->ranks[r].status == 85;
    }
    if (l->fatal.code != 0) {
        return run_exit_status(l->fatal.code);
    }
    if (l->asked > 1 && !all_done) {
        err_set(err, ERR_FAILED, "interrupted twice: the steps since the last checkpoint are lost");
        return 130;
    }
    if (l->first_status != 0) {
        err_set(err, ERR_FAILED, "rank %u ended with status %d (its own line is above)",
                l->first_rank, l->first_status);
        return l->first_status;
    }
    if (all_done) {
        return 0;
    }
    if (lost_peer) {
        err_set(err, ERR_COMM, "the ranks lost each other");
        return 85;
    }
    err_set(err, ERR_PREEMPTED, "stopped and saved (go on with --resume auto)");
    return 80;
}

static void launcher_fini(struct launcher *l)
{
    coord_destroy(l->coord);
    if (l->scratch != NULL) {
        file_remove_tree(l->scratch, NULL);
    }
    if (l->signal_fd >= 0) {
        close(l->signal_fd);
    }
    run_dir_close(&l->dir);
    jobspec_fini(&l->spec);
    free(l->ranks);
    free(l->scratch);
    free(l->socket);
    free(l->spec_path);
    free(l->resume_dir);
}

/* ---- what stays behind */

static void log_begin(const struct launcher *l)
{
    struct err why = {0};
    if (attempt_log_begin(l->dir.path, l->dir.epoch, l->count, l->resume_dir, &why) != 0) {
        log_warn("this start is not written down: %s", why.text);
    }
}

static void log_end(const struct launcher *l, int status, const char *text)
{
    struct err why = {0};
    if (attempt_log_end(l->dir.path, l->dir.epoch, status,
                        status == 0 ? "all steps are done" : text, &why) != 0) {
        log_warn("the end of this start is not written down: %s", why.text);
    }
}

/* However the run ended. A report that cannot be written is no failure of the run. */
static void write_report(const struct launcher *l)
{
    json_t *facts = NULL;
    struct metrics metrics;
    struct err why = {0};
    int rc = run_facts_read(l->dir.path, NAN, true, &facts, &metrics, &why);
    if (rc == 0) {
        rc = run_report_save_both(l->dir.path, facts, &metrics, &why);
        metrics_fini(&metrics);
    }
    if (rc == 0) {
        log_info("report: %s/report.html", l->dir.path);
    } else {
        log_warn("no report was written: %s", why.text);
    }
    json_decref(facts);
}

/* One attempt. *again: it left a decision of the guard for the next one (watch.h), which begins
 * at a checkpoint of this run when there is one. */
static int launch_once(const struct run_options *options, int *status, bool *again, bool *saved,
                       struct err *err)
{
    struct launcher l = {.signal_fd = -1, .dir = {.lock_fd = -1, .ckpt_lock_fd = -1}};
    int rc = prepare(&l, options, err);
    if (rc == 0) {
        l.ranks = mem_alloc_array(l.count, sizeof *l.ranks);
        for (uint32_t r = 0; r < l.count; r++) {
            l.ranks[r].output = -1;
        }
        bool another = false;
        size_t decided = watch_decided(l.dir.ckpt_dir, &another);
        log_begin(&l);
        run_ranks(&l, err);
        *status = outcome(&l, err);
        *again = watch_decided(l.dir.ckpt_dir, &another) > decided && another &&
                 *status == run_exit_status(ERR_AGAIN) && l.asked == 0;
        *saved = l.dir.count > 0;
        log_end(&l, *status, err->text);
        if (!*again) {
            write_report(&l);
        }
        rc = *status == 0 ? 0 : err->code != 0 ? err->code : ERR_FAILED;
    } else {
        *status = run_exit_status(rc);
    }
    launcher_fini(&l);
    return rc;
}

int launch(const struct run_options *options, int *status, struct err *err)
{
    struct run_options now = *options;
    for (;;) {
        bool again = false;
        bool saved = false;
        struct err why = {0};
        int rc = launch_once(&now, status, &again, &saved, &why);
        if (!again) {
            return rc == 0 ? 0 : err_set(err, rc, "%s", why.text);
        }
        now.resume = saved ? "auto" : options->resume;
    }
}
