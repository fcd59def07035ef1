/* event list, tail */
#include <inttypes.h>
#include <string.h>

#include "ctl/cmd.h"
#include "ctl/encode.h"
#include "ctl/events.h"
#include "proto/pick.h"

#define LIST_LIMIT 100u
#define PAGE_LIMIT 1000u
#define TAIL_LIMIT 10u
#define WAIT_MS    20000 /* one question is held open this long */
#define GRACE_MS   15000 /* for its answer after that */

static int ask(struct ctl *ctl, bool has_since, uint64_t since, uint32_t limit,
               Ds__EventList **reply, struct err *err)
{
    Ds__EventListRequest request = DS__EVENT_LIST_REQUEST__INIT;
    request.has_since = has_since;
    request.since = since;
    request.has_limit = 1;
    request.limit = limit;
    return session_call(&ctl->session, RPC_EVENT_LIST, &request, reply, err);
}

/* The events of one job come with the job. */
static int ask_of_job(struct ctl *ctl, uint64_t job, uint64_t since, json_t *items, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    Ds__Job *reply = NULL;
    request.id = job;
    TRY(session_call(&ctl->session, RPC_JOB_SHOW, &request, &reply, err));
    json_t *object = output_json(reply, NULL);
    const json_t *events = json_object_get(object, "events");
    for (size_t i = 0; i < json_array_size(events); i++) {
        json_t *event = json_array_get(events, i);
        if (pick_count(event, "seq") > since) {
            json_array_append(items, event);
        }
    }
    json_decref(object);
    return 0;
}

static void keep_last(json_t *items, uint64_t count)
{
    size_t size = json_array_size(items);
    json_t *kept = json_array();
    for (size_t i = size > count ? size - (size_t)count : 0; i < size; i++) {
        json_array_append(kept, json_array_get(items, i));
    }
    json_array_clear(items);
    json_array_extend(items, kept);
    json_decref(kept);
}

/* ---- list */

/* From `since` on, page by page, until `limit` (0: none). */
static int read_pages(struct ctl *ctl, uint64_t since, uint64_t limit, json_t *items,
                      struct err *err)
{
    for (;;) {
        uint64_t left = limit == 0 ? PAGE_LIMIT : limit - json_array_size(items);
        Ds__EventList *reply = NULL;
        if (left == 0) {
            return 0;
        }
        TRY(ask(ctl, true, since, left < PAGE_LIMIT ? (uint32_t)left : PAGE_LIMIT, &reply, err));
        size_t count = reply->n_items;
        since = count > 0 ? reply->items[count - 1]->seq : since;
        json_t *page = output_json(reply, NULL);
        json_array_extend(items, json_object_get(page, "items"));
        json_decref(page);
        if (count == 0) {
            return 0;
        }
    }
}

/* Where the newest `count` start, more than come in one page: sequence numbers have no gaps. */
static int skip_to_newest(struct ctl *ctl, uint64_t count, uint64_t *since, struct err *err)
{
    Ds__EventList *reply = NULL;
    TRY(ask(ctl, false, 0, 1, &reply, err));
    uint64_t newest = reply->n_items > 0 ? reply->items[0]->seq : 0;
    rpc_free(&reply->base);
    *since = newest > count ? newest - count : 0;
    return 0;
}

static int read_list(struct ctl *ctl, json_t *items, struct err *err)
{
    const struct args *a = &ctl->args;
    bool has_since = args_has(a, "since");
    uint64_t limit = ctl->output.limited ? ctl->output.limit : has_since ? 0 : LIST_LIMIT;
    uint64_t since = 0, job = 0;
    TRY(args_u64(a, "since", &since, err));
    if (args_has(a, "job")) {
        TRY(args_id(args_get(a, "job"), "job", &job, err));
        TRY(ask_of_job(ctl, job, since, items, err));
        if (!has_since && limit > 0) {
            keep_last(items, limit);
        }
        return 0;
    }
    if (!has_since && limit > 0) {
        TRY(skip_to_newest(ctl, limit, &since, err));
    }
    return read_pages(ctl, since, limit, items, err);
}

int cmd_event_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    json_t *items = json_array();
    int rc = read_list(ctl, items, err);
    if (rc != 0) {
        json_decref(items);
        return rc;
    }
    json_t *list = json_pack("{s:s, s:o}", "schema", "ds/event-list/v1", "items", items);
    return output_list(&ctl->output, out, list, &event_listing, err);
}

/* ---- tail */

static int print_one(struct ctl *ctl, const json_t *event, struct err *err)
{
    const struct output *o = &ctl->output;
    struct buf line = {0};
    if (o->format == OUTPUT_JSON) {
        json_t *object = json_pack("{s:s}", "schema", "ds/event/v1");
        json_object_update(object, (json_t *)(uintptr_t)event);
        encode_json(&line, object, false);
        buf_append_str(&line, "\n");
        json_decref(object);
    } else if (o->format == OUTPUT_YAML) {
        buf_append_str(&line, "---\n");
        encode_yaml(&line, event);
    } else if (o->format == OUTPUT_CSV) {
        json_t *rows = json_pack("[O]", event);
        table_csv(&line, rows, event_listing.columns, event_listing.column_count, true);
        json_decref(rows);
    } else if (o->format == OUTPUT_NAME) {
        buf_printf(&line, "event/%" PRIu64 "\n", pick_count(event, "seq"));
    } else {
        event_line(o, &line, event);
    }
    return ctl_write(ctl, &line, err);
}

static int print_all(struct ctl *ctl, const json_t *items, uint64_t job, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < json_array_size(items) && rc == 0; i++) {
        const json_t *event = json_array_get(items, i);
        if (job == 0 || pick_count(event, "job") == job) {
            rc = print_one(ctl, event, err);
        }
    }
    return rc;
}

/* What happened before we came. */
static int read_newest(struct ctl *ctl, uint64_t job, uint64_t count, json_t *items,
                       uint64_t *since, struct err *err)
{
    Ds__EventList *reply = NULL;
    TRY(ask(ctl, false, 0, count > 0 && count < PAGE_LIMIT ? (uint32_t)count : PAGE_LIMIT, &reply,
            err));
    *since = reply->n_items > 0 ? reply->items[reply->n_items - 1]->seq : 0;
    json_t *newest = output_json(reply, NULL);
    if (job == 0) {
        json_array_extend(items, json_object_get(newest, "items"));
    }
    json_decref(newest);
    if (job == 0) {
        return 0;
    }
    TRY(ask_of_job(ctl, job, 0, items, err));
    /* What happened since the first question comes with the next one. */
    size_t size = json_array_size(items);
    while (size > 0 && pick_count(json_array_get(items, size - 1), "seq") > *since) {
        json_array_remove(items, --size);
    }
    if (count > 0) {
        keep_last(items, count);
    }
    return 0;
}

static int begin(struct ctl *ctl, uint64_t job, uint64_t *since, struct err *err)
{
    uint64_t count = ctl->output.limited ? ctl->output.limit : TAIL_LIMIT;
    json_t *items = json_array();
    int rc = read_newest(ctl, job, count, items, since, err);
    rc = rc != 0 ? rc : print_all(ctl, items, 0, err);
    json_decref(items);
    return rc;
}

int cmd_event_tail(struct ctl *ctl, struct err *err)
{
    const struct args *a = &ctl->args;
    uint64_t since = 0, job = 0;
    if (args_has(a, "job")) {
        TRY(args_id(args_get(a, "job"), "job", &job, err));
    }
    TRY(args_u64(a, "since", &since, err));
    if (ctl->output.sort != NULL) {
        return err_set(err, ERR_USAGE,
                       "event tail shows events as they happen: --sort has no place here");
    }
    TRY(args_has(a, "since") ? session_open(&ctl->session, err) : begin(ctl, job, &since, err));
    for (;;) {
        Ds__EventListRequest request = DS__EVENT_LIST_REQUEST__INIT;
        Ds__EventList *reply = NULL;
        request.has_since = request.has_limit = request.has_wait_ms = 1;
        request.since = since;
        request.limit = PAGE_LIMIT;
        request.wait_ms = WAIT_MS;
        TRY(session_call_patiently(&ctl->session, RPC_EVENT_LIST, &request, &reply,
                                   WAIT_MS + GRACE_MS, -1, err));
        since = reply->n_items > 0 ? reply->items[reply->n_items - 1]->seq : since;
        json_t *page = output_json(reply, NULL);
        int rc = print_all(ctl, json_object_get(page, "items"), job, err);
        json_decref(page);
        TRY(rc);
    }
}
