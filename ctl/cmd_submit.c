/* job submit, plan */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "ctl/cmd.h"
#include "ctl/interrupt.h"
#include "ctl/jobs.h"
#include "ctl/logs.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "ctl/wait.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/format.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"
#include "proto/pbjson.h"
#include "proto/pick.h"

#define SPEC_BYTES_MAX  (1u << 20)
#define MODEL_BYTES_MAX (1u << 20)
#define SUBMIT_MS       30000

/* What is sent. Owned. */
struct submission {
    struct buf spec;
    char *name; /* of the file, for messages */
    char *dir;
    char *workdir;
    const char **set;
    size_t set_count;
    struct buf model;
    bool has_model;
    char *key;
};

static void submission_fini(struct submission *s)
{
    buf_fini(&s->spec);
    buf_fini(&s->model);
    free(s->name);
    free(s->dir);
    free(s->workdir);
    free(s->set);
    free(s->key);
}

static int read_stdin(struct buf *out, struct err *err)
{
    for (;;) {
        ssize_t got = read(STDIN_FILENO, buf_reserve(out, 65536), 65536);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_set_errno(err, "cannot read the job from standard input");
        }
        if (got == 0) {
            return 0;
        }
        out->len += (size_t)got;
        if (out->len > SPEC_BYTES_MAX) {
            return err_set(err, ERR_TOO_LARGE, "the job on standard input has more than %u bytes",
                           SPEC_BYTES_MAX);
        }
    }
}

static char *folder_of(const char *path, struct err *err)
{
    char *copy = mem_strdup(path);
    char *slash = strrchr(copy, '/');
    if (slash != NULL) {
        slash[slash == copy ? 1 : 0] = 0;
    }
    char *folder = realpath(slash != NULL ? copy : ".", NULL);
    if (folder == NULL) {
        err_set_errno(err, "cannot find the folder of %s", path);
    }
    free(copy);
    return folder;
}

static int read_job(struct submission *s, const char *path, struct err *err)
{
    s->workdir = getcwd(NULL, 0);
    if (s->workdir == NULL) {
        return err_set_errno(err, "cannot tell the current folder, where the job would run");
    }
    if (strcmp(path, "-") == 0) {
        s->name = mem_strdup("stdin");
        s->dir = mem_strdup(s->workdir);
        return read_stdin(&s->spec, err);
    }
    s->name = mem_strdup(path);
    TRY(file_read(path, SPEC_BYTES_MAX, &s->spec, err));
    s->dir = folder_of(path, err);
    return s->dir != NULL ? 0 : err->code;
}

static int read_model(struct submission *s, const struct jobspec *spec, struct err *err)
{
    struct model_config model;
    if (!spec->has_train) {
        return 0;
    }
    if (file_read(spec->train.model, MODEL_BYTES_MAX, &s->model, err) != 0) {
        return err_wrap(err, "%s: train.model", s->name);
    }
    s->has_model = true;
    return jobspec_model(spec, buf_cstr(&s->model), s->model.len, s->name, &model, err);
}

/* Everything that can be known without a coordinator. */
static int prepare(struct submission *s, const struct ctl *ctl, struct err *err)
{
    struct jobspec spec = {0};
    s->set = args_all(&ctl->args, "set", &s->set_count);
    TRY(read_job(s, ctl->args.words[0], err));
    TRY(jobspec_parse(&spec, buf_cstr(&s->spec), s->spec.len, s->name, s->dir, s->set, s->set_count,
                      err));
    int rc = read_model(s, &spec, err);
    jobspec_fini(&spec);
    TRY(rc);
    if (strlen(buf_cstr(&s->spec)) != s->spec.len ||
        (s->has_model && strlen(buf_cstr(&s->model)) != s->model.len)) {
        return err_set(err, ERR_INVALID, "%s: a NUL byte in the job or its model (both are text)",
                       s->name);
    }
    return 0;
}

static int prepare_here(struct submission *s, const struct ctl *ctl, struct err *err)
{
    int rc = prepare(s, ctl, err);
    /* These two are for what the coordinator has, not for a file here. */
    return rc == ERR_NOT_FOUND || rc == ERR_DENIED ? ERR_FAILED : rc;
}

static char *random_key(void)
{
    uint64_t bits[2];
    if (getrandom(bits, sizeof bits, 0) != sizeof bits) {
        abort(); /* 16 bytes cannot fail */
    }
    return mem_printf("%016" PRIx64 "%016" PRIx64, bits[0], bits[1]);
}

static Ds__JobSubmit request_of(struct submission *s)
{
    Ds__JobSubmit request = DS__JOB_SUBMIT__INIT;
    request.spec = buf_cstr(&s->spec);
    request.spec_name = s->name;
    request.spec_dir = s->dir;
    request.set = (char **)(uintptr_t)s->set;
    request.n_set = s->set_count;
    request.key = s->key;
    request.model_json = s->has_model ? buf_cstr(&s->model) : NULL;
    request.workdir = s->workdir;
    return request;
}

static int send(struct ctl *ctl, struct submission *s, bool dry_run, Ds__JobSubmitReply **reply,
                struct err *err)
{
    Ds__JobSubmit request = request_of(s);
    int64_t limit_ms = ctl->session.timeout_ms > 0 ? ctl->session.timeout_ms : SUBMIT_MS;
    request.has_dry_run = 1;
    request.dry_run = dry_run;
    int64_t give_up_ms = clock_boot_ms() + limit_ms;
    /* Nobody there: nothing was sent, so say so at once. After that the request may have arrived,
     * and only the key makes it safe to ask again. */
    TRY(session_open(&ctl->session, err));
    int rc = session_call_patiently(&ctl->session, RPC_JOB_SUBMIT, &request, reply,
                                    limit_ms / 3 + 1, give_up_ms, err);
    if (rc != 0 && !ctl->session.lost && strstr(err->text, s->name) == NULL) {
        err_wrap(err, "%s", s->name);
    } else if (rc != 0 && ctl->session.lost && !dry_run) {
        err_set(err, rc,
                "no answer from the coordinator at %s: the job may have been accepted (run the "
                "same again with --key %s: "
                "that cannot submit it twice)",
                ctl->session.address, s->key);
    }
    return rc;
}

static int print_submitted(struct ctl *ctl, Ds__JobSubmitReply *reply, bool dry_run,
                           struct err *err)
{
    struct buf line = {0};
    const enum output_format format = ctl->output.format;
    if (args_has(&ctl->args, "parsable")) {
        buf_printf(&line, "%" PRIu64 "\n", reply->id);
    } else if (format == OUTPUT_NAME) {
        buf_printf(&line, "job/%" PRIu64 "\n", reply->id);
    } else if (format == OUTPUT_CSV) {
        buf_printf(&line, "%s%" PRIu64 ",%s\n", ctl->output.no_header ? "" : "id,name\n", reply->id,
                   reply->name);
    } else if (!output_for_people(&ctl->output)) {
        json_t *object = pbjson_from(&reply->base, "ds/job-submit/v1");
        output_object(&ctl->output, &line, object);
        json_decref(object);
    } else if (dry_run) {
        buf_printf(&line, "the coordinator would accept %s; nothing was queued\n", reply->name);
    } else {
        buf_printf(&line, "submitted job %" PRIu64 " (%s)\n", reply->id, reply->name);
    }
    return ctl_write(ctl, &line, err);
}

/* Waits for the end. What --parsable and -o name print was the id, and stays all. */
static int wait_and_report(struct ctl *ctl, uint64_t id, struct err *err)
{
    Ds__Job *job = NULL;
    TRY(wait_for_end(ctl, id, &job, err));
    if (args_has(&ctl->args, "parsable") || ctl->output.format == OUTPUT_NAME) {
        int verdict = job_verdict(job, err);
        rpc_free(&job->base);
        return verdict;
    }
    return wait_report(ctl, job, err);
}

/* After the submission: what --wait and --follow add. */
static int stay(struct ctl *ctl, uint64_t id, struct err *err)
{
    ctl->session.timeout_ms = 0; /* it was the submission's */
    if (args_has(&ctl->args, "follow")) {
        struct log_request logs = {.job = id, .follow = true, .streams = LOG_BOTH};
        interrupt_say("\ndsctl: job %" PRIu64 " goes on (come back with: dsctl job logs %" PRIu64
                      " -f; end it with: dsctl job cancel %" PRIu64 ")\n",
                      id, id, id);
        TRY(logs_print(ctl, &logs, err));
    } else {
        interrupt_say("\ndsctl: job %" PRIu64 " goes on (wait again with: dsctl job wait %" PRIu64
                      "; end it with: dsctl job cancel %" PRIu64 ")\n",
                      id, id, id);
    }
    return wait_and_report(ctl, id, err);
}

int cmd_job_submit(struct ctl *ctl, struct err *err)
{
    struct submission s = {0};
    Ds__JobSubmitReply *reply = NULL;
    const char *key = args_get(&ctl->args, "key");
    bool dry_run = args_has(&ctl->args, "dry-run");
    bool staying = args_has(&ctl->args, "wait") || args_has(&ctl->args, "follow");
    int rc = prepare_here(&s, ctl, err);
    if (rc == 0) {
        s.key = key != NULL ? mem_strdup(key) : random_key();
        rc = send(ctl, &s, dry_run, &reply, err);
    }
    submission_fini(&s);
    TRY(rc);
    uint64_t id = reply->id;
    staying = staying && !dry_run;
    if (reply->existing) {
        ctl_note(ctl, "job %" PRIu64 " was submitted before with this key", id);
    }
    /* One document: where the job is shown at the end, that is it. */
    bool document = !output_for_people(&ctl->output) && ctl->output.format != OUTPUT_NAME &&
                    !args_has(&ctl->args, "parsable");
    rc = staying && document ? 0 : print_submitted(ctl, reply, dry_run, err);
    rpc_free(&reply->base);
    return rc == 0 && staying ? stay(ctl, id, err) : rc;
}

/* ---- plan */

static const struct column plan_columns[] = {
    {"ACTION", "action", 0, NULL, NULL},       {"NAME", "name", 0, NULL, NULL},
    {"START", "start_at", 0, NULL, NULL},      {"NODES", "nodes", 0, NULL, NULL},
    {"LEAVES", "leaves", 0, NULL, NULL},       {"CROSSINGS", "crossings", 0, NULL, NULL},
    {"NODELIST", "node_names", 0, NULL, NULL}, {"BEHIND", "behind", 0, NULL, NULL},
    {"VICTIMS", "victims", 0, NULL, NULL},     {"REASON", "reason.text", 0, NULL, NULL},
};
static const struct listing plan_listing = LISTING(NULL, NULL, plan_columns);

static void append_plan_victims(struct buf *out, const json_t *plan)
{
    const json_t *victims = pick(plan, "victims");
    size_t shown = json_array_size(victims);
    int64_t count = pick_int(plan, "victim_count");
    if (count == 0) {
        return;
    }
    page_label(out, "preempts");
    for (size_t i = 0; i < shown; i++) {
        buf_printf(out, "%s%" JSON_INTEGER_FORMAT,
                   i > 0       ? ", "
                   : shown > 1 ? "jobs "
                               : "job ",
                   json_integer_value(json_array_get(victims, i)));
    }
    if (count > (int64_t)shown) {
        buf_printf(out, " and %" PRId64 " more", count - (int64_t)shown);
    }
    buf_append_str(out, "\n");
}

static void plan_page(const struct output *o, struct buf *out, const json_t *plan)
{
    (void)o;
    int64_t behind = pick_int(plan, "behind");
    int64_t nodes = pick_int(plan, "nodes");
    int64_t start_ms = 0;
    const char *action = pick_text(plan, "action");
    text_append_clean(out, pick_text(plan, "name"));
    buf_printf(out, " would %s: ", action);
    text_append_clean(out, pick_text(plan, "reason.text"));
    buf_append_str(out, "\n");
    if (strcmp(action, "start") != 0) {
        page_label(out, "starts");
        if (pick_time(plan, "start_at", &start_ms)) {
            buf_append_str(out, "about ");
            format_time(out, start_ms);
        } else {
            buf_append_str(out, "cannot be said (what it waits for has no known end)");
        }
        buf_append_str(out, "\n");
    }
    if (behind != 0) {
        page_label(out, "behind");
        buf_printf(out, "job %" PRId64 "\n", behind);
    }
    append_plan_victims(out, plan);
    if (nodes > 0) {
        page_label(out, "nodes");
        text_append_clean(out, pick_text(plan, "node_names"));
        buf_printf(out, " (%" PRId64 " leaf switch%s, %" PRId64 " crossing%s)\n",
                   pick_int(plan, "leaves"), pick_int(plan, "leaves") == 1 ? "" : "es",
                   pick_int(plan, "crossings"), pick_int(plan, "crossings") == 1 ? "" : "s");
    }
    page_time(out, "last pass", plan, "scheduled_at");
}

/* The exit status of a plan, by the action: 0 it starts, 1 it waits, 2 it makes others stop. */
static int plan_verdict(const char *action)
{
    return strcmp(action, "start") == 0     ? 0
           : strcmp(action, "preempt") == 0 ? ERR_USAGE
                                            : ERR_FAILED;
}

int cmd_job_plan(struct ctl *ctl, struct buf *out, struct err *err)
{
    struct submission s = {0};
    Ds__JobPlan *reply = NULL;
    int rc = prepare_here(&s, ctl, err);
    if (rc == 0) {
        Ds__JobSubmit request = request_of(&s);
        rc = session_call(&ctl->session, RPC_JOB_PLAN, &request, &reply, err);
        if (rc != 0 && !ctl->session.lost && strstr(err->text, s.name) == NULL) {
            err_wrap(err, "%s", s.name);
        }
    }
    submission_fini(&s);
    TRY(rc);
    int verdict = plan_verdict(reply->action);
    TRY(output_one(&ctl->output, out, output_json(reply, "ds/job-plan/v1"), &plan_listing,
                   plan_page, err));
    return verdict;
}
