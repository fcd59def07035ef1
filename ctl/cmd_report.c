/* job report: what the coordinator knows of a job, as the run report (report/run_report.h). */
#include <string.h>
#include <strings.h>

#include "ctl/cmd.h"
#include "ctl/encode.h"
#include "ctl/metric_pages.h"
#include "lib/clock.h"
#include "proto/pbjson.h"
#include "proto/pick.h"
#include "report/run_report.h"

/* ---- the facts */

static int ask_job(struct ctl *ctl, uint64_t id, json_t **facts, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    Ds__Job *job = NULL;
    char now[CLOCK_TEXT_BYTES];
    request.id = id;
    TRY(session_call(&ctl->session, RPC_JOB_SHOW, &request, &job, err));
    *facts = output_json(job, "ds/report/v1");
    clock_format_utc(clock_wall_ms(), now);
    json_object_set_new(*facts, "origin", json_string("coordinator"));
    json_object_set_new(*facts, "made_at", json_string(now));
    return 0;
}

/* What the accelerators' time went into. */
static int ask_time(struct ctl *ctl, uint64_t id, json_t *facts, struct err *err)
{
    Ds__CostReportRequest request = DS__COST_REPORT_REQUEST__INIT;
    Ds__Cost *cost = NULL;
    char by[] = "category";
    request.by = by;
    request.has_job = 1;
    request.job = id;
    TRY(session_call(&ctl->session, RPC_COST_REPORT, &request, &cost, err));
    json_t *time = json_array();
    for (size_t i = 0; i < cost->n_items; i++) {
        const Ds__CostItem *item = cost->items[i];
        json_array_append_new(time, json_pack("{s:s,s:I,s:I}", "category", item->key, "gpu_ms",
                                              (json_int_t)item->gpu_ms, "cost_micro_usd",
                                              (json_int_t)item->cost_micro_usd));
    }
    rpc_free(&cost->base);
    json_object_set_new(facts, "time", time);
    return 0;
}

/* Of the newest checkpoint on the way that the run has come. */
static int ask_layout(struct ctl *ctl, json_t *facts, struct err *err)
{
    const json_t *ckpts = pick(facts, "checkpoints");
    Ds__CkptId request = DS__CKPT_ID__INIT;
    Ds__Ckpt *ckpt = NULL;
    for (size_t i = json_array_size(ckpts); i-- > 0 && request.id == 0;) {
        const json_t *c = json_array_get(ckpts, i);
        bool good = strcmp(pick_text(c, "state"), "COMMITTED") == 0;
        request.id = good && !json_is_true(pick(c, "given_up")) ? pick_count(c, "id") : 0;
    }
    if (request.id == 0) {
        return 0;
    }
    TRY(session_call(&ctl->session, RPC_CKPT_SHOW, &request, &ckpt, err));
    json_t *object = output_json(ckpt, NULL);
    if (pick(object, "layout") != NULL) {
        json_object_set(facts, "layout", json_object_get(object, "layout"));
    }
    json_decref(object);
    return 0;
}

/* What the guard decided at the ends of attempts. */
static void find_decisions(json_t *facts)
{
    const json_t *attempts = pick(facts, "attempts");
    json_t *guard = json_array();
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        const json_t *a = json_array_get(attempts, i);
        if (pick(a, "guard") != NULL) {
            json_array_append_new(
                guard, json_pack("{s:I,s:I,s:s,s:s}", "epoch", (json_int_t)pick_int(a, "epoch"),
                                 "step", (json_int_t)pick_int(a, "last_step"), "action",
                                 pick_text(a, "guard"), "text", pick_text(a, "guard_text")));
        }
    }
    json_object_set_new(facts, "guard", guard);
}

static void take_page(const Ds__MetricList *page, void *metrics)
{
    json_t *list = pbjson_from(&page->base, NULL);
    const json_t *items = json_object_get(list, "items");
    for (size_t i = 0; i < json_array_size(items); i++) {
        metrics_take(metrics, json_array_get(items, i));
    }
    json_decref(list);
}

static int ask(struct ctl *ctl, uint64_t id, json_t **facts, struct metrics *metrics,
               struct err *err)
{
    TRY(ask_job(ctl, id, facts, err));
    TRY(ask_time(ctl, id, *facts, err));
    TRY(ask_layout(ctl, *facts, err));
    find_decisions(*facts);
    TRY(metric_pages_read(ctl, id, 0, take_page, metrics, err));
    metrics_finish(metrics);
    return 0;
}

/* ---- the report */

static bool is_html(const struct args *args, const char *out)
{
    const char *format = args_get(args, "output");
    size_t len = out != NULL ? strlen(out) : 0;
    return format != NULL ? strcasecmp(format, "html") == 0
                          : len > 5 && strcasecmp(out + len - 5, ".html") == 0;
}

static int show(const struct ctl *ctl, struct buf *out, const json_t *facts,
                const struct metrics *metrics, struct err *err)
{
    const char *file = args_get(&ctl->args, "out");
    const char *output = args_get(&ctl->args, "output");
    enum doc_format format = is_html(&ctl->args, file) ? DOC_HTML : DOC_MARKDOWN;
    if (output != NULL && strcasecmp(output, "json") == 0) {
        if (file != NULL) {
            return err_set(err, ERR_USAGE, "-o json goes to standard output: leave out --out");
        }
        json_t *whole = run_report_json(facts, metrics);
        encode_json(out, whole, true);
        json_decref(whole);
    } else if (file != NULL) {
        TRY(run_report_save(file, format, facts, metrics, err));
        buf_printf(out, "wrote %s\n", file);
    } else {
        struct doc d;
        doc_init(&d, format, NULL);
        run_report_write(&d, facts, metrics);
        buf_append(out, d.out.data, d.out.len);
        doc_fini(&d);
    }
    return 0;
}

int cmd_job_report(struct ctl *ctl, struct buf *out, struct err *err)
{
    json_t *facts = NULL;
    struct metrics metrics = {0};
    uint64_t id = 0;
    TRY(args_id(ctl->args.words[0], "job", &id, err));
    int rc = ask(ctl, id, &facts, &metrics, err);
    rc = rc == 0 ? show(ctl, out, facts, &metrics, err) : rc;
    metrics_fini(&metrics);
    json_decref(facts);
    return rc;
}
