#include <stdlib.h>

#include "daemon/many.h"
#include "daemon/rpc.h"
#include "daemon/session.h"

/* ------------------------------------------------------------------ reads */

void rpc_job_list(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__JobList *list = NULL;
    int rc = views_job_list(call->dsd->views, (const Ds__JobListRequest *)request,
                            dsd_now_ms(call->dsd), &list, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

/* Of a job that waits; planned for it alone, unlike what a list says. */
static void expected_start(struct dsd *d, uint64_t job, protobuf_c_boolean *has, int64_t *at_ms)
{
    int64_t start_ms = core_expected_start_ms(d->core, job);
    *has = start_ms != INT64_MAX;
    *at_ms = *has ? start_ms : 0;
}

static void answer_job(struct call *call, uint64_t id, bool whole)
{
    struct err err = {0};
    Ds__Job *job = NULL;
    int rc = views_job(call->dsd->views, id, whole, dsd_now_ms(call->dsd), &job, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &job->has_scheduled_at, &job->scheduled_at);
        if (whole) {
            expected_start(call->dsd, id, &job->has_expected_start_at, &job->expected_start_at);
        }
    }
    call_answer(call, rc, (ProtobufCMessage *)job, &err);
}

void rpc_job_show(struct call *call, const ProtobufCMessage *request)
{
    answer_job(call, ((const Ds__JobId *)request)->id, true);
}

void rpc_job_why(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__Reason *reason = NULL;
    uint64_t id = ((const Ds__JobId *)request)->id;
    int rc = views_job_reason(call->dsd->views, id, &reason, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &reason->has_scheduled_at, &reason->scheduled_at);
        expected_start(call->dsd, id, &reason->has_expected_start_at, &reason->expected_start_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)reason, &err);
}

void rpc_job_metrics(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__MetricList *list = NULL;
    int rc = views_metrics(call->dsd->views, (const Ds__MetricRead *)request, &list, &err);
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

int64_t rpc_planned_start(void *dsd, uint64_t job)
{
    const struct dsd *d = dsd;
    return core_planned_start_ms(d->core, job);
}

bool rpc_job_why_live(void *dsd, uint64_t job, char *code, size_t code_bytes, char *text,
                      size_t text_bytes)
{
    const struct dsd *d = dsd;
    return core_why(d->core, job, code, code_bytes, text, text_bytes);
}

/* ------------------------------------------------------------------ JOB_WAIT */

static void wait_expired(struct call *call)
{
    answer_job(call, call->id, false);
}

static void wait_unhook(struct call *call)
{
    LIST_REMOVE(call, waiting);
}

void rpc_job_wait(struct call *call, const ProtobufCMessage *request)
{
    const Ds__JobWait *r = (const Ds__JobWait *)request;
    struct dsd *d = call->dsd;
    struct err err = {0};
    bool ended = false;
    if (views_job_ended(d->views, r->id, &ended, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
    } else if (ended) {
        answer_job(call, r->id, false);
    } else {
        call->id = r->id;
        if (call_park(call, r->has_wait_ms ? (int64_t)r->wait_ms : INT64_MAX, wait_expired,
                      wait_unhook)) {
            LIST_INSERT_HEAD(&d->job_waits[r->id % JOB_WAIT_BUCKETS], call, waiting);
        }
    }
}

void rpc_job_wait_check(struct call *call)
{
    bool ended = false;
    struct err err = {0};
    if (views_job_ended(call->dsd->views, call->id, &ended, &err) != 0 || ended) {
        answer_job(call, call->id, false);
    }
}

/* ------------------------------------------------------------------ changes */

static void change_all(struct call *call, const ProtobufCMessage *request, enum input_kind kind)
{
    const Ds__JobCancel *r = (const Ds__JobCancel *)request;
    struct many *m = many_begin(call, r->n_id, "jobs", many_reply_ids);
    for (size_t i = 0; m != NULL && i < r->n_id; i++) {
        m->items[i].id = r->id[i];
        struct input in = {.kind = kind};
        in.u.job.job = r->id[i];
        in.u.job.user = call->peer->user;
        in.u.job.reason = r->reason;
        many_input(m, i, &in);
    }
}

void rpc_job_cancel(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_CANCEL);
}

void rpc_job_hold(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_HOLD);
}

void rpc_job_release(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_RELEASE);
}

void rpc_job_suspend(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_SUSPEND);
}

void rpc_job_resume(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_RESUME);
}

void rpc_job_requeue(struct call *call, const ProtobufCMessage *request)
{
    change_all(call, request, INPUT_JOB_REQUEUE);
}

/* ------------------------------------------------------------------ JOB_LOGS */

/* What a worker sends in one chunk. */
#define LOG_BYTES_MAX (1024u * 1024u)

void rpc_job_logs(struct call *call, const ProtobufCMessage *request)
{
    Ds__LogRead r = *(const Ds__LogRead *)request;
    struct dsd *d = call->dsd;
    struct views_log_place place = {.epoch = r.has_epoch ? r.epoch : 0};
    struct err err = {0};
    if (r.stream != 1 && r.stream != 2) {
        call_fail(call, ERR_INVALID, "there is no log stream %u (1 is stdout, 2 stderr)", r.stream);
        return;
    }
    if (views_log_place(d->views, r.job, r.rank, &place, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    struct session *s = session_find(d, core_session_of_node(d->core, place.node_id));
    if (s == NULL) {
        call_fail(call, ERR_UNREACHABLE,
                  "the logs of rank %u are on node %s, which is not connected (try again when "
                  "`dsctl node show %s` says "
                  "it is)",
                  r.rank, place.node, place.node);
        return;
    }
    r.has_epoch = 1;
    r.epoch = place.epoch;
    if (!r.has_limit_bytes || r.limit_bytes == 0 || r.limit_bytes > LOG_BYTES_MAX) {
        r.has_limit_bytes = 1;
        r.limit_bytes = LOG_BYTES_MAX;
    }
    if (call_park(call, INT64_MAX, NULL, session_order_orphan)) {
        session_order(s, RPC_LOG_READ, &r.base, r.job, r.epoch, call);
    }
}
