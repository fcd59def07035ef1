/* job update, resize, suspend, resume, requeue */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cmd.h"
#include "ctl/outcome.h"
#include "ctl/when.h"
#include "lib/clock.h"
#include "lib/mem.h"

/* The ids of the command line; *ids is the caller's to free, also on failure. */
static int read_ids(const struct args *a, uint64_t **ids, size_t *count, struct err *err)
{
    *ids = mem_alloc_array(a->word_count, sizeof **ids);
    *count = 0;
    for (size_t i = 0; i < a->word_count; i++) {
        TRY(args_id(a->words[i], "job", &(*ids)[(*count)++], err));
    }
    return 0;
}

static int change(struct ctl *ctl, uint16_t method, const struct deed *deed, const char *question,
                  struct err *err)
{
    Ds__JobCancel request = DS__JOB_CANCEL__INIT;
    Ds__OutcomeList *reply = NULL;
    request.reason = (char *)(uintptr_t)args_get(&ctl->args, "reason");
    int rc = read_ids(&ctl->args, &request.id, &request.n_id, err);
    if (rc == 0 && question != NULL && request.n_id > 1) {
        char *text = mem_printf("%s %zu jobs?", question, request.n_id);
        rc = ctl_confirm(ctl, text, err);
        free(text);
    }
    if (rc == 0) {
        rc = session_call(&ctl->session, method, &request, &reply, err);
    }
    free(request.id);
    return rc != 0 ? rc : outcome_report(ctl, deed, output_json(reply, "ds/outcome-list/v1"), err);
}

int cmd_job_suspend(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "suspended", "suspend"};
    return change(ctl, RPC_JOB_SUSPEND, &deed, "Suspend", err);
}

int cmd_job_resume(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "resumed", "resume"};
    return change(ctl, RPC_JOB_RESUME, &deed, NULL, err);
}

int cmd_job_requeue(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "requeued", "requeue"};
    return change(ctl, RPC_JOB_REQUEUE, &deed, "Requeue", err);
}

/* ---- resize */

/* "4" or, elastic, "2-8". */
static int read_size(const char *text, Ds__JobResize *request, struct err *err)
{
    unsigned min = 0, max = 0;
    int end = 0;
    bool good = strspn(text, "0123456789-") == strlen(text) && strlen(text) <= 11 && text[0] != '-';
    if (good && sscanf(text, "%5u-%5u%n", &min, &max, &end) == 2) {
        good = text[end] == 0;
    } else {
        good = good && sscanf(text, "%5u%n", &min, &end) == 1 && text[end] == 0;
        max = min;
    }
    if (!good || min == 0 || max < min) {
        return err_set(err, ERR_USAGE,
                       "--nodes %s: not a size (give 4, or 2-8 for a job that may have any of "
                       "these)",
                       text);
    }
    request->nodes_min = min;
    request->nodes_max = max;
    return 0;
}

int cmd_job_resize(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "resized", "resize"};
    Ds__JobResize request = DS__JOB_RESIZE__INIT;
    Ds__OutcomeList *reply = NULL;
    const char *nodes = args_get(&ctl->args, "nodes");
    if (nodes == NULL) {
        return err_set(err, ERR_USAGE, "job resize: the size is missing (add --nodes 4)");
    }
    TRY(read_size(nodes, &request, err));
    int rc = read_ids(&ctl->args, &request.id, &request.n_id, err);
    if (rc == 0) {
        rc = session_call(&ctl->session, RPC_JOB_RESIZE, &request, &reply, err);
    }
    free(request.id);
    return rc != 0 ? rc : outcome_report(ctl, &deed, output_json(reply, "ds/outcome-list/v1"), err);
}

/* ---- update */

static bool is_none(const char *text)
{
    return text != NULL && strcmp(text, "none") == 0;
}

/* A duration, or "none" for 0. */
static int read_limit(const struct args *a, const char *name, protobuf_c_boolean *has,
                      uint64_t *value, struct err *err)
{
    int64_t ms = 0;
    *has = args_has(a, name);
    if (!is_none(args_get(a, name))) {
        TRY(args_duration(a, name, &ms, err));
    }
    *value = (uint64_t)ms;
    return 0;
}

/* A time, or "none" for 0. */
static int read_time(const struct args *a, const char *name, protobuf_c_boolean *has,
                     int64_t *value, struct err *err)
{
    const char *text = args_get(a, name);
    *has = text != NULL;
    *value = 0;
    if (text == NULL || is_none(text)) {
        return 0;
    }
    return when_parse(text, clock_wall_ms(), value, err) == 0 ? 0 : err_wrap(err, "--%s", name);
}

static int read_update(const struct args *a, Ds__JobUpdate *u, struct err *err)
{
    uint64_t array_limit = 0;
    u->has_priority = args_has(a, "priority");
    TRY(args_i64(a, "priority", &u->priority, err));
    u->queue = (char *)(uintptr_t)args_get(a, "queue");
    u->account = (char *)(uintptr_t)args_get(a, "account");
    TRY(read_limit(a, "time-limit", &u->has_time_limit_ms, &u->time_limit_ms, err));
    TRY(read_time(a, "not-before", &u->has_not_before_at, &u->not_before_at, err));
    TRY(read_time(a, "deadline", &u->has_deadline_at, &u->deadline_at, err));
    u->has_array_limit = args_has(a, "array-limit");
    if (!is_none(args_get(a, "array-limit"))) {
        TRY(args_u64(a, "array-limit", &array_limit, err));
    }
    if (array_limit > INT32_MAX) {
        return err_set(err, ERR_USAGE, "--array-limit %s: too many", args_get(a, "array-limit"));
    }
    u->array_limit = (uint32_t)array_limit;
    u->has_preemptible = args_has(a, "preemptible");
    u->preemptible = args_yes(a, "preemptible");
    TRY(read_limit(a, "min-runtime", &u->has_min_runtime_ms, &u->min_runtime_ms, err));
    if (!u->has_priority && u->queue == NULL && u->account == NULL && !u->has_time_limit_ms &&
        !u->has_not_before_at && !u->has_deadline_at && !u->has_array_limit &&
        !u->has_preemptible && !u->has_min_runtime_ms) {
        return err_set(err, ERR_USAGE,
                       "job update: nothing to change is given (such as --priority 10; see dsctl "
                       "job update -h)");
    }
    return 0;
}

int cmd_job_update(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "updated", "update"};
    Ds__JobUpdate request = DS__JOB_UPDATE__INIT;
    Ds__OutcomeList *reply = NULL;
    TRY(read_update(&ctl->args, &request, err));
    int rc = read_ids(&ctl->args, &request.id, &request.n_id, err);
    if (rc == 0) {
        rc = session_call(&ctl->session, RPC_JOB_UPDATE, &request, &reply, err);
    }
    free(request.id);
    return rc != 0 ? rc : outcome_report(ctl, &deed, output_json(reply, "ds/outcome-list/v1"), err);
}
