/* job list, show, why, cancel, hold, release, wait */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cmd.h"
#include "ctl/interrupt.h"
#include "ctl/jobs.h"
#include "ctl/outcome.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "ctl/wait.h"
#include "lib/mem.h"
#include "proto/pick.h"

#define LIST_LIMIT 1000u
#define PAGE_LIMIT 1000u

/* ---- list */

/* One page: those below `before`, 0 for the newest. */
static int ask_page(struct ctl *ctl, uint64_t before, uint64_t limit, Ds__JobList **page,
                    struct err *err)
{
    Ds__JobListRequest request = DS__JOB_LIST_REQUEST__INIT;
    char *state = mem_strdup(args_get(&ctl->args, "state"));
    text_upper(state);
    request.state = state;
    request.user = (char *)(uintptr_t)args_get(&ctl->args, "user");
    request.queue = (char *)(uintptr_t)args_get(&ctl->args, "queue");
    request.has_all = request.has_limit = 1;
    request.all = state != NULL || args_has(&ctl->args, "all");
    request.limit = limit < PAGE_LIMIT ? (uint32_t)limit : PAGE_LIMIT;
    request.has_before = before != 0;
    request.before = before;
    int rc = session_call(&ctl->session, RPC_JOB_LIST, &request, page, err);
    free(state);
    return rc;
}

/* The newest `limit`, page by page. */
static int read_list(struct ctl *ctl, uint64_t limit, json_t **list, struct err *err)
{
    uint64_t before = 0;
    *list = NULL;
    for (;;) {
        Ds__JobList *page = NULL;
        int rc = ask_page(ctl, before, limit - json_array_size(json_object_get(*list, "items")),
                          &page, err);
        if (rc != 0) {
            json_decref(*list);
            return rc;
        }
        uint64_t last = page->n_items > 0 ? page->items[page->n_items - 1]->id : 0;
        bool more = page->truncated && last != 0 && (before == 0 || last < before);
        before = last;
        json_t *object = output_rows(&ctl->output, page, "ds/job-list/v1", &job_listing);
        if (*list == NULL) {
            *list = object;
        } else {
            json_array_extend(json_object_get(*list, "items"), json_object_get(object, "items"));
            json_t *truncated = json_object_get(object, "truncated");
            json_object_set(*list, "truncated", truncated != NULL ? truncated : json_false());
            json_decref(object);
        }
        if (!more || json_array_size(json_object_get(*list, "items")) >= limit) {
            return 0;
        }
    }
}

static void say_what_is_missing(const struct ctl *ctl, const json_t *list)
{
    const struct args *a = &ctl->args;
    size_t count = json_array_size(json_object_get(list, "items"));
    if (json_is_true(pick(list, "truncated")) && !ctl->output.limited) {
        ctl_note(ctl, "only the newest %zu jobs are shown (--limit 0 shows all)", count);
    }
    if (count == 0 && ctl->output.format == OUTPUT_TABLE && !args_has(a, "all")) {
        ctl_note(ctl, args_has(a, "state") ? "no such jobs"
                                           : "no live jobs (--all lists those that ended, too)");
    }
}

int cmd_job_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    const struct output *o = &ctl->output;
    uint64_t limit = !o->limited ? LIST_LIMIT : o->limit == 0 ? UINT64_MAX : o->limit;
    json_t *list = NULL;
    /* What is sorted is cut after the sorting. */
    TRY(read_list(ctl, o->sort != NULL && limit < LIST_LIMIT ? LIST_LIMIT : limit, &list, err));
    if (!args_has(&ctl->args, "watch")) { /* notes would spoil the screen */
        say_what_is_missing(ctl, list);
    }
    return output_list(o, out, list, &job_listing, err);
}

/* ---- show, why */

static int ask_job(struct ctl *ctl, uint16_t method, void *reply, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    TRY(args_id(ctl->args.words[0], "job", &request.id, err));
    return session_call(&ctl->session, method, &request, reply, err);
}

int cmd_job_show(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Job *job = NULL;
    TRY(ask_job(ctl, RPC_JOB_SHOW, &job, err));
    return output_one(&ctl->output, out, output_json(job, "ds/job/v1"), &job_listing, job_page,
                      err);
}

static void why_page(const struct output *o, struct buf *out, const json_t *reason)
{
    (void)o;
    text_append_clean(out, pick_text(reason, "text"));
    buf_append_str(out, "\n");
    job_expected(out, reason);
    page_time(out, "last pass", reason, "scheduled_at");
}

int cmd_job_why(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Reason *reason = NULL;
    TRY(ask_job(ctl, RPC_JOB_WHY, &reason, err));
    return output_one(&ctl->output, out, output_json(reason, "ds/reason/v1"), NULL, why_page, err);
}

/* ---- cancel, hold, release */

static int change(struct ctl *ctl, uint16_t method, const struct deed *deed, const char *reason,
                  struct err *err)
{
    Ds__JobCancel request = DS__JOB_CANCEL__INIT;
    Ds__OutcomeList *reply = NULL;
    request.reason = (char *)(uintptr_t)reason;
    request.id = mem_alloc_array(ctl->args.word_count, sizeof *request.id);
    int rc = 0;
    for (size_t i = 0; i < ctl->args.word_count; i++) {
        TRY_GOTO(args_id(ctl->args.words[i], "job", &request.id[request.n_id++], err), done);
    }
    if (method == RPC_JOB_CANCEL && request.n_id > 1) {
        char *question = mem_printf("Cancel %zu jobs?", request.n_id);
        rc = ctl_confirm(ctl, question, err);
        free(question);
        TRY_GOTO(rc, done);
    }
    TRY_GOTO(session_call(&ctl->session, method, &request, &reply, err), done);
    rc = outcome_report(ctl, deed, output_json(reply, "ds/outcome-list/v1"), err);
done:
    free(request.id);
    return rc;
}

int cmd_job_cancel(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "cancelled", "cancel"};
    return change(ctl, RPC_JOB_CANCEL, &deed, args_get(&ctl->args, "reason"), err);
}

int cmd_job_hold(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "held", "hold"};
    return change(ctl, RPC_JOB_HOLD, &deed, args_get(&ctl->args, "reason"), err);
}

int cmd_job_release(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"job", "id", "released", "release"};
    return change(ctl, RPC_JOB_RELEASE, &deed, NULL, err);
}

/* ---- wait */

int cmd_job_wait(struct ctl *ctl, struct err *err)
{
    uint64_t id = 0;
    Ds__Job *job = NULL;
    TRY(args_id(ctl->args.words[0], "job", &id, err));
    interrupt_say(
        "\ndsctl: job %" PRIu64 " goes on (wait again with: dsctl job wait %" PRIu64 ")\n", id, id);
    TRY(wait_for_end(ctl, id, &job, err));
    return wait_report(ctl, job, err);
}
