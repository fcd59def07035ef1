/* The history: EVENT_LIST and what wakes those who wait for something to happen. */
#include "daemon/rpc.h"
#include "lib/log.h"
#include "lib/version.h"

/* ------------------------------------------------------------------ EVENT_LIST */

static void answer(struct call *call, const Ds__EventListRequest *r)
{
    struct err err = {0};
    Ds__EventList *list = NULL;
    int rc = views_events(call->dsd->views, r, &list, &err);
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static void answer_parked(struct call *call)
{
    Ds__EventListRequest r = DS__EVENT_LIST_REQUEST__INIT;
    r.has_since = r.has_limit = 1;
    r.since = call->since;
    r.limit = call->limit;
    answer(call, &r);
}

static void unhook(struct call *call)
{
    LIST_REMOVE(call, waiting);
}

void rpc_event_list(struct call *call, const ProtobufCMessage *request)
{
    const Ds__EventListRequest *r = (const Ds__EventListRequest *)request;
    struct dsd *d = call->dsd;
    uint64_t since = r->has_since ? r->since : 0;
    if (!r->has_wait_ms || r->wait_ms == 0 || d->last_event > since) {
        answer(call, r);
        return;
    }
    call->since = since;
    call->limit = r->has_limit ? r->limit : 0;
    if (call_park(call, (int64_t)r->wait_ms, answer_parked, unhook)) {
        LIST_INSERT_HEAD(&d->event_waits, call, waiting);
    }
}

/* ------------------------------------------------------------------ something happened */

void rpc_event_happened(struct dsd *d, uint64_t seq, uint64_t job)
{
    if (seq > d->last_event) {
        d->last_event = seq;
    }
    struct call *call;
    LIST_FOREACH(call, &d->job_waits[job % JOB_WAIT_BUCKETS], waiting)
    {
        call->limit |= call->id == job;
    }
}

static void log_new(struct dsd *d)
{
    while (d->logged_event < d->last_event && d->config->log_level >= LOG_INFO) {
        Ds__EventListRequest r = DS__EVENT_LIST_REQUEST__INIT;
        r.has_since = r.has_limit = 1;
        r.since = d->logged_event;
        r.limit = 1000;
        Ds__EventList *list = NULL;
        struct err err = {0};
        if (views_events(d->views, &r, &list, &err) != 0) {
            log_error("cannot read the events to log: %s", err.text);
            return;
        }
        for (size_t i = 0; i < list->n_items; i++) {
            log_info("event %llu %s: %s", (unsigned long long)list->items[i]->seq,
                     list->items[i]->kind, list->items[i]->text);
            d->logged_event = list->items[i]->seq;
        }
        bool none = list->n_items == 0;
        ds__event_list__free_unpacked(list, NULL);
        if (none) {
            return;
        }
    }
}

static void wake_job_waits(struct call_list *bucket)
{
    struct call *call = LIST_FIRST(bucket);
    while (call != NULL) {
        struct call *next = LIST_NEXT(call, waiting);
        if (call->limit != 0) {
            call->limit = 0;
            rpc_job_wait_check(call);
        }
        call = next;
    }
}

void rpc_events_flow(struct dsd *d)
{
    if (d->logged_event == d->last_event) {
        return;
    }
    for (size_t i = 0; i < JOB_WAIT_BUCKETS; i++) {
        wake_job_waits(&d->job_waits[i]);
    }
    struct call *call = LIST_FIRST(&d->event_waits);
    while (call != NULL) {
        struct call *next = LIST_NEXT(call, waiting);
        if (d->last_event > call->since) {
            answer_parked(call);
        }
        call = next;
    }
    log_new(d);
    d->logged_event = d->last_event;
}

/* ------------------------------------------------------------------ CLUSTER_STATUS */

void rpc_cluster_status(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    struct dsd *d = call->dsd;
    struct err err = {0};
    Ds__ClusterStatus *status = NULL;
    int rc = views_cluster(d->views, &status, &err);
    if (rc != 0) {
        call_fail(call, rc, "%s", err.text);
        return;
    }
    /* Not the message's own memory: taken out again before it is freed. */
    status->cluster = (char *)d->config->core.cluster;
    status->version = (char *)DS_VERSION;
    status->term = d->term;
    status->started_at = d->started_ms;
    status->now_at = dsd_now_ms(d);
    status->scheduled_at = core_scheduled_ms(d->core);
    status->has_scheduled_at = status->scheduled_at > 0;
    call_reply(call, &status->base);
    status->cluster = status->version = NULL;
    ds__cluster_status__free_unpacked(status, NULL);
}
