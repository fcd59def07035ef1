/* ckpt export: runs dstrain on the checkpoint's folder, with what the coordinator knows of the job
 * as the facts of the model card. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/cmd.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/pbjson.h"

#define EXEC_FAILED 127

/* ---- what the coordinator knows */

static int ask_ckpt(struct ctl *ctl, Ds__Ckpt **ckpt, struct err *err)
{
    Ds__CkptId request = DS__CKPT_ID__INIT;
    TRY(args_id(ctl->args.words[0], "ckpt", &request.id, err));
    TRY(session_call(&ctl->session, RPC_CKPT_SHOW, &request, ckpt, err));
    if (strcmp((*ckpt)->state, "COMMITTED") != 0) {
        return err_set(err, ERR_CONFLICT,
                       "checkpoint %" PRIu64 " is %s: only a committed one can be exported",
                       request.id, (*ckpt)->state);
    }
    return 0;
}

/* Steps 1, 2, 5, 10, 20, 50 ... up to the checkpoint's: few, however long the run. */
static uint64_t next_shown(uint64_t step)
{
    uint64_t power = 1;
    while (power * 10 <= step) {
        power *= 10;
    }
    return step < 2 * power ? 2 * power : step < 5 * power ? 5 * power : 10 * power;
}

static int add_metric(struct ctl *ctl, uint64_t job, uint64_t step, json_t *metrics,
                      struct err *err)
{
    Ds__MetricRead request = DS__METRIC_READ__INIT;
    Ds__MetricList *page = NULL;
    request.job = job;
    request.has_from_step = request.has_limit = 1;
    request.from_step = step;
    request.limit = 1;
    TRY(session_call(&ctl->session, RPC_JOB_METRICS, &request, &page, err));
    if (page->n_items > 0 && page->items[0]->step == step) {
        json_t *object = pbjson_from(&page->base, NULL);
        json_array_append(metrics, json_array_get(json_object_get(object, "items"), 0));
        json_decref(object);
    }
    rpc_free(&page->base);
    return 0;
}

static int ask_job(struct ctl *ctl, const Ds__Ckpt *ckpt, json_t **facts, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    Ds__Job *job = NULL;
    request.id = ckpt->job;
    TRY(session_call(&ctl->session, RPC_JOB_SHOW, &request, &job, err));
    *facts = output_json(job, "ds/job/v1");
    json_t *metrics = json_array();
    json_object_set_new(*facts, "metrics", metrics);
    for (uint64_t step = 1; step < ckpt->step; step = next_shown(step)) {
        TRY(add_metric(ctl, ckpt->job, step, metrics, err));
    }
    return add_metric(ctl, ckpt->job, ckpt->step, metrics, err);
}

/* ---- dstrain */

/* The one of the same installation, else one in PATH. */
static char *find_dstrain(void)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = len > 0 ? memrchr(self, '/', (size_t)len) : NULL;
    if (slash != NULL) {
        char *path = mem_printf("%.*s/dstrain", (int)(slash - self), self);
        if (access(path, X_OK) == 0) {
            return path;
        }
        free(path);
    }
    return mem_strdup("dstrain");
}

/* A file without a name, that a child may open as /dev/fd/N. */
static int open_facts(const json_t *facts, int *fd, struct err *err)
{
    char *text = json_dumps(facts, JSON_COMPACT);
    *fd = memfd_create("facts", 0);
    int rc = *fd < 0 ? err_set_errno(err, "cannot make room for the job's facts")
                     : file_write_all(*fd, text, strlen(text), err);
    free(text);
    return rc;
}

static void add_option(const struct ctl *ctl, const char **argv, size_t *count, const char *name,
                       const char *option)
{
    const char *value = args_get(&ctl->args, name);
    if (value != NULL) {
        argv[(*count)++] = option;
        argv[(*count)++] = value;
    }
}

/* The child's side. It leaves no folder behind when it is told to stop, so it is told when dsctl
 * dies. */
static void exec_dstrain(const char *path, const char *const *argv, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (dup2(out, STDOUT_FILENO) >= 0) {
        execvp(path, (char *const *)(uintptr_t)argv);
    }
    _exit(EXEC_FAILED);
}

static int copy_output(struct ctl *ctl, int fd, struct err *err)
{
    char chunk[4096];
    for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) != 0;) {
        struct buf text = {0};
        if (got < 0 && errno != EINTR) {
            return err_set_errno(err, "cannot read what dstrain prints");
        }
        buf_append(&text, chunk, got > 0 ? (size_t)got : 0);
        TRY(ctl_write(ctl, &text, err)); /* frees it */
    }
    return 0;
}

static int judge(int status, const char *path, struct err *err)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXEC_FAILED) {
        return err_set(err, ERR_NOT_FOUND,
                       "cannot run %s (install it beside dsctl, or put it into PATH)", path);
    }
    if (WIFSIGNALED(status)) {
        return err_set(err, ERR_FAILED, "%s was killed by signal %d", path, WTERMSIG(status));
    }
    return WEXITSTATUS(status) == 0 ? 0 : ERR_FAILED; /* it said why on stderr */
}

static int run_dstrain(struct ctl *ctl, const char *const *argv, struct err *err)
{
    int out[2];
    int status = 0;
    if (pipe2(out, O_CLOEXEC) != 0) {
        return err_set_errno(err, "cannot make a pipe");
    }
    fflush(ctl->out);
    pid_t pid = fork();
    if (pid == 0) {
        exec_dstrain(argv[0], argv, out[1]);
    }
    close(out[1]);
    if (pid < 0) {
        close(out[0]);
        return err_set_errno(err, "cannot start %s", argv[0]);
    }
    int rc = copy_output(ctl, out[0], err);
    close(out[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return rc != 0 ? rc : judge(status, argv[0], err);
}

static int export_ckpt(struct ctl *ctl, const Ds__Ckpt *ckpt, const json_t *facts, struct err *err)
{
    const char *argv[16];
    size_t count = 0;
    int fd = -1;
    char *path = find_dstrain();
    char *facts_path = NULL;
    int rc = open_facts(facts, &fd, err);
    if (rc == 0) {
        facts_path = mem_printf("/proc/self/fd/%d", fd);
        argv[count++] = path;
        argv[count++] = "export";
        add_option(ctl, argv, &count, "format", "--format");
        add_option(ctl, argv, &count, "dtype", "--dtype");
        add_option(ctl, argv, &count, "shard-size", "--shard-size");
        add_option(ctl, argv, &count, "tokenizer", "--tokenizer");
        argv[count++] = "--facts";
        argv[count++] = facts_path;
        argv[count++] = "--";
        argv[count++] = ckpt->path;
        argv[count++] = args_get(&ctl->args, "output");
        argv[count] = NULL;
        rc = run_dstrain(ctl, argv, err);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(facts_path);
    free(path);
    return rc;
}

int cmd_ckpt_export(struct ctl *ctl, struct err *err)
{
    Ds__Ckpt *ckpt = NULL;
    json_t *facts = NULL;
    if (args_get(&ctl->args, "output") == NULL) {
        return err_set(err, ERR_USAGE, "ckpt export: where to? (-o DIR)");
    }
    int rc = ask_ckpt(ctl, &ckpt, err);
    rc = rc == 0 ? ask_job(ctl, ckpt, &facts, err) : rc;
    rc = rc == 0 ? export_ckpt(ctl, ckpt, facts, err) : rc;
    json_decref(facts);
    if (ckpt != NULL) {
        rpc_free(&ckpt->base);
    }
    return rc;
}
