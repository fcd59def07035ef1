/* QUEUE_*, ACCOUNT_* and QUOTA_*: who shares the cluster, and how. */
#include <math.h>
#include <string.h>

#include "daemon/core/rows.h"
#include "daemon/rpc.h"
#include "lib/mem.h"

#define NAME_BYTES_MAX   63
#define REASON_BYTES_MAX 1000u

double rpc_used_gpu_ms(void *dsd, const char *account, const char *user)
{
    const struct dsd *d = dsd;
    return core_used_gpu_ms(d->core, account, user);
}

/* ------------------------------------------------------------------ queues */

void rpc_queue_list(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    struct err err = {0};
    Ds__QueueList *list = NULL;
    int rc = views_queue_list(call->dsd->views, &list, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static void answer_queue(struct call *call, const char *name)
{
    struct err err = {0};
    Ds__Queue *queue = NULL;
    int rc = views_queue(call->dsd->views, name, &queue, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &queue->has_scheduled_at, &queue->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)queue, &err);
}

void rpc_queue_show(struct call *call, const ProtobufCMessage *request)
{
    answer_queue(call, ((const Ds__QueueName *)request)->name);
}

static void on_queue_set(struct call *call, const struct effect *reply)
{
    if (reply->u.reply.code != 0) {
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
    } else {
        answer_queue(call, call->data);
    }
}

/* A number that is given, or lifted by name; false for a name that is no limit. */
struct limit {
    const char *name;
    uint32_t field;
    bool given;
    int64_t *value;
};

static bool lift(const struct limit *limits, size_t count, const char *name, uint32_t *fields)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(limits[i].name, name) == 0 && !limits[i].given) {
            *limits[i].value = ROW_NONE;
            *fields |= limits[i].field;
            return true;
        }
    }
    return false;
}

static int read_limits(const struct limit *limits, size_t count, char *const *lifted,
                       size_t lifted_count, uint32_t *fields, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        *fields |= limits[i].given ? limits[i].field : 0;
    }
    for (size_t i = 0; i < lifted_count; i++) {
        if (!lift(limits, count, lifted[i], fields)) {
            return err_set(err, ERR_INVALID, "'%.40s' is no limit that can be lifted here",
                           lifted[i]);
        }
    }
    return 0;
}

static int queue_input(const Ds__QueueSet *r, struct input_queue_set *q, struct err *err)
{
    *q = (struct input_queue_set){
        .name = r->name,
        .priority = r->priority,
        .nodes_max = r->nodes_max,
        .jobs_max = r->jobs_max,
        .user_nodes_max = r->user_nodes_max,
        .user_jobs_max = r->user_jobs_max,
        .waiting_max = r->waiting_max,
        .priority_max = r->priority_max,
        .time_limit_ms = r->time_limit_ms,
        .preempts = r->preempts != 0,
        .preemptible = r->preemptible != 0,
        .accepts = r->accepts != 0,
        .starts = r->starts != 0,
    };
    q->fields =
        (r->has_priority ? QUEUE_FIELD_PRIORITY : 0u) | (r->has_weight ? QUEUE_FIELD_WEIGHT : 0u) |
        (r->has_preempts ? QUEUE_FIELD_PREEMPTS : 0u) |
        (r->has_preemptible ? QUEUE_FIELD_PREEMPTIBLE : 0u) |
        (r->has_accepts ? QUEUE_FIELD_ACCEPTS : 0u) | (r->has_starts ? QUEUE_FIELD_STARTS : 0u);
    if (r->has_weight) {
        if (!(r->weight >= 0 && r->weight <= 1000)) {
            return err_set(err, ERR_INVALID, "queue %.80s: a weight is between 0 and 1000",
                           r->name);
        }
        q->weight_milli = llround(r->weight * 1000);
    }
    const struct limit limits[] = {
        {"nodes_max", QUEUE_FIELD_NODES_MAX, r->has_nodes_max, &q->nodes_max},
        {"jobs_max", QUEUE_FIELD_JOBS_MAX, r->has_jobs_max, &q->jobs_max},
        {"user_nodes_max", QUEUE_FIELD_USER_NODES_MAX, r->has_user_nodes_max, &q->user_nodes_max},
        {"user_jobs_max", QUEUE_FIELD_USER_JOBS_MAX, r->has_user_jobs_max, &q->user_jobs_max},
        {"waiting_max", QUEUE_FIELD_WAITING_MAX, r->has_waiting_max, &q->waiting_max},
        {"priority_max", QUEUE_FIELD_PRIORITY_MAX, r->has_priority_max, &q->priority_max},
        {"time_limit_ms", QUEUE_FIELD_TIME_LIMIT, r->has_time_limit_ms, &q->time_limit_ms},
    };
    return read_limits(limits, sizeof limits / sizeof limits[0], r->lift, r->n_lift, &q->fields,
                       err);
}

void rpc_queue_set(struct call *call, const ProtobufCMessage *request)
{
    const Ds__QueueSet *r = (const Ds__QueueSet *)request;
    struct input in = {.kind = INPUT_QUEUE_SET};
    struct err err = {0};
    if (queue_input(r, &in.u.queue, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    in.u.queue.user = call->peer->user;
    call->data = mem_strdup(r->name);
    call_commit(call, &in, on_queue_set);
}

/* ------------------------------------------------------------------ accounts */

void rpc_account_list(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    struct err err = {0};
    Ds__AccountList *list = NULL;
    int rc = views_account_list(call->dsd->views, &list, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static void answer_account(struct call *call, const char *name)
{
    struct err err = {0};
    Ds__Account *account = NULL;
    int rc = views_account(call->dsd->views, name, &account, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &account->has_scheduled_at, &account->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)account, &err);
}

void rpc_account_show(struct call *call, const ProtobufCMessage *request)
{
    answer_account(call, ((const Ds__AccountName *)request)->name);
}

static void on_account_set(struct call *call, const struct effect *reply)
{
    if (reply->u.reply.code != 0) {
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
    } else {
        answer_account(call, call->data);
    }
}

void rpc_account_set(struct call *call, const ProtobufCMessage *request)
{
    const Ds__AccountSet *r = (const Ds__AccountSet *)request;
    struct input in = {.kind = INPUT_ACCOUNT_SET};
    struct input_account_set *a = &in.u.account;
    struct err err = {0};
    a->name = r->name;
    a->user = call->peer->user;
    a->shares = r->shares;
    a->nodes_max = r->nodes_max;
    a->accepts = r->accepts != 0;
    a->fields =
        (r->has_shares ? ACCOUNT_FIELD_SHARES : 0u) | (r->has_accepts ? ACCOUNT_FIELD_ACCEPTS : 0u);
    const struct limit limit = {"nodes_max", ACCOUNT_FIELD_NODES_MAX, r->has_nodes_max,
                                &a->nodes_max};
    if (read_limits(&limit, 1, r->lift, r->n_lift, &a->fields, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    call->data = mem_strdup(r->name);
    call_commit(call, &in, on_account_set);
}

/* ------------------------------------------------------------------ quotas */

void rpc_quota_list(struct call *call, const ProtobufCMessage *request)
{
    const Ds__QuotaListRequest *r = (const Ds__QuotaListRequest *)request;
    struct err err = {0};
    Ds__QuotaList *list = NULL;
    int rc = views_quota_list(call->dsd->views, r->has_all && r->all, dsd_now_ms(call->dsd), &list,
                              &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static int check_whose(const char *name, const char *what, struct err *err)
{
    return name == NULL || strcmp(name, "*") == 0 ? 0
                                                  : rpc_check_name(name, NAME_BYTES_MAX, what, err);
}

static int check_quota(const Ds__QuotaSet *r, struct err *err)
{
    TRY(check_whose(r->user, "user", err));
    TRY(check_whose(r->account, "account", err));
    if (r->reason != NULL && strlen(r->reason) > REASON_BYTES_MAX) {
        return err_set(err, ERR_INVALID, "a reason has at most %u bytes", REASON_BYTES_MAX);
    }
    return 0;
}

void rpc_quota_set(struct call *call, const ProtobufCMessage *request)
{
    const Ds__QuotaSet *r = (const Ds__QuotaSet *)request;
    struct err err = {0};
    if (check_quota(r, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    struct input in = {.kind = INPUT_QUOTA_SET};
    in.u.quota = (struct input_quota_set){
        .user = r->user,
        .account = r->account,
        .class = r->class_,
        .reason = r->reason,
        .by_user = call->peer->user,
        .nodes = r->has_nodes ? r->nodes : ROW_NONE,
        .expires_ms = r->has_expires_at ? r->expires_at : ROW_NONE,
    };
    call_commit(call, &in, call_done_empty);
}
