/* queue list, show, set; account list, show, set; quota list, set */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "ctl/when.h"
#include "lib/clock.h"
#include "proto/format.h"
#include "proto/pick.h"

/* ---- options */

#define LIMITS_MAX 8

/* Names of limits that are lifted. */
struct lifted {
    char *names[LIMITS_MAX];
    size_t count;
};

/* A number, or "none", which lifts the limit. name: of the option; key: of the field. */
static int read_limit(const struct args *a, const char *name, const char *key,
                      protobuf_c_boolean *has, int64_t *value, struct lifted *lifted,
                      struct err *err)
{
    const char *text = args_get(a, name);
    if (text == NULL) {
        return 0;
    }
    if (strcmp(text, "none") == 0) {
        lifted->names[lifted->count++] = (char *)(uintptr_t)key;
        return 0;
    }
    *has = 1;
    return strcmp(key, "time_limit_ms") == 0 ? args_duration(a, name, value, err)
                                             : args_i64(a, name, value, err);
}

static void read_flag(const struct args *a, const char *name, protobuf_c_boolean *has,
                      protobuf_c_boolean *value)
{
    *has = args_has(a, name);
    *value = args_yes(a, name);
}

static int nothing_to_set(const char *noun, struct err *err)
{
    return err_set(err, ERR_USAGE, "%s set: nothing to change is given (see dsctl %s set -h)", noun,
                   noun);
}

/* What was set, as it now is: a line for people, the object for programs. */
static int print_set(struct ctl *ctl, const char *noun, json_t *object,
                     const struct listing *listing, struct err *err)
{
    struct buf out = {0};
    if (output_for_people(&ctl->output)) {
        buf_printf(&out, "set %s ", noun);
        text_append_clean(&out, pick_text(object, "name"));
        buf_append_str(&out, "\n");
        json_decref(object);
    } else {
        TRY(output_one(&ctl->output, &out, object, listing, NULL, err));
    }
    return ctl_write(ctl, &out, err);
}

/* ---- queues */

static const struct column queue_columns[] = {
    {"QUEUE", "name", COLUMN_LONG, NULL, NULL},
    {"PRIO", "priority", COLUMN_RIGHT, NULL, NULL},
    {"WEIGHT", "weight", COLUMN_RIGHT, NULL, NULL},
    {"RUNNING", "jobs_running", COLUMN_RIGHT, NULL, NULL},
    {"WAITING", "jobs_waiting", COLUMN_RIGHT, NULL, NULL},
    {"NODES", "nodes_used", COLUMN_RIGHT, NULL, NULL},
    {"NODES-MAX", "nodes_max", COLUMN_RIGHT, NULL, NULL},
    {"JOBS-MAX", "jobs_max", COLUMN_RIGHT, NULL, NULL},
    {"USER-NODES-MAX", "user_nodes_max", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"USER-JOBS-MAX", "user_jobs_max", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"WAITING-MAX", "waiting_max", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"PRIO-MAX", "priority_max", COLUMN_RIGHT | COLUMN_WIDE, NULL, NULL},
    {"TIME-LIMIT", "time_limit_ms", COLUMN_RIGHT, cell_duration, NULL},
    {"PREEMPTS", "preempts", COLUMN_WIDE, cell_yes, NULL},
    {"PREEMPTIBLE", "preemptible", COLUMN_WIDE, cell_yes, NULL},
    {"ACCEPTS", "accepts", 0, cell_yes, NULL},
    {"STARTS", "starts", 0, cell_yes, NULL},
    {"BY", "by", COLUMN_WIDE, NULL, NULL},
    {"CHANGED", "changed_at", COLUMN_WIDE, cell_time, NULL},
};
static const struct listing queue_listing = LISTING("queue", "name", queue_columns);

int cmd_queue_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__QueueList *reply = NULL;
    TRY(session_call(&ctl->session, RPC_QUEUE_LIST, &request, &reply, err));
    return output_list(&ctl->output, out, output_json(reply, "ds/queue-list/v1"), &queue_listing,
                       err);
}

static void page_limit(struct buf *out, const char *label, const json_t *object, const char *key)
{
    const json_t *value = pick(object, key);
    page_label(out, label);
    if (value == NULL) {
        buf_append_str(out, "no limit");
    } else if (strcmp(key, "time_limit_ms") == 0) {
        format_duration(out, json_integer_value(value));
    } else {
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    }
    buf_append_str(out, "\n");
}

static void page_flag(struct buf *out, const char *label, const json_t *object, const char *key)
{
    page_text(out, label, json_is_true(pick(object, key)) ? "yes" : "no");
}

static void page_jobs(struct buf *out, const json_t *object)
{
    page_label(out, "jobs");
    buf_printf(out, "%lld running on %lld nodes, %lld waiting\n",
               (long long)pick_int(object, "jobs_running"),
               (long long)pick_int(object, "nodes_used"),
               (long long)pick_int(object, "jobs_waiting"));
}

static void page_changed(struct buf *out, const json_t *object)
{
    const char *by = pick_text(object, "by");
    page_text(out, "set by", by[0] != 0 ? by : "the configuration");
    page_time(out, "changed", object, "changed_at");
    page_time(out, "last pass", object, "scheduled_at");
}

static void queue_page(const struct output *o, struct buf *out, const json_t *q)
{
    page_title(o, out, "queue", pick_text(q, "name"), "", "");
    page_jobs(out, q);
    page_label(out, "priority");
    buf_printf(out, "%lld added to that of its jobs\n", (long long)pick_int(q, "priority"));
    page_label(out, "weight");
    buf_printf(out, "%g\n", json_number_value(pick(q, "weight")));
    page_limit(out, "nodes", q, "nodes_max");
    page_limit(out, "jobs", q, "jobs_max");
    page_limit(out, "user nodes", q, "user_nodes_max");
    page_limit(out, "user jobs", q, "user_jobs_max");
    page_limit(out, "waiting", q, "waiting_max");
    page_limit(out, "top prio", q, "priority_max");
    page_limit(out, "time limit", q, "time_limit_ms");
    page_flag(out, "preempts", q, "preempts");
    page_flag(out, "preemptible", q, "preemptible");
    page_flag(out, "accepts", q, "accepts");
    page_flag(out, "starts", q, "starts");
    page_changed(out, q);
}

int cmd_queue_show(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__QueueName request = DS__QUEUE_NAME__INIT;
    Ds__Queue *reply = NULL;
    request.name = (char *)(uintptr_t)ctl->args.words[0];
    TRY(session_call(&ctl->session, RPC_QUEUE_SHOW, &request, &reply, err));
    return output_one(&ctl->output, out, output_json(reply, "ds/queue/v1"), &queue_listing,
                      queue_page, err);
}

static int read_queue(const struct args *a, Ds__QueueSet *q, struct lifted *lifted, struct err *err)
{
    const char *weight = args_get(a, "weight");
    q->has_priority = args_has(a, "priority");
    TRY(args_i64(a, "priority", &q->priority, err));
    if (weight != NULL) {
        char *end = NULL;
        q->has_weight = 1;
        q->weight = strtod(weight, &end);
        if (end == weight || *end != 0 || !isfinite(q->weight) || q->weight < 0) {
            return err_set(err, ERR_USAGE, "--weight %s: not a weight (give a number from 0 on)",
                           weight);
        }
    }
    TRY(read_limit(a, "nodes", "nodes_max", &q->has_nodes_max, &q->nodes_max, lifted, err));
    TRY(read_limit(a, "jobs", "jobs_max", &q->has_jobs_max, &q->jobs_max, lifted, err));
    TRY(read_limit(a, "user-nodes", "user_nodes_max", &q->has_user_nodes_max, &q->user_nodes_max,
                   lifted, err));
    TRY(read_limit(a, "user-jobs", "user_jobs_max", &q->has_user_jobs_max, &q->user_jobs_max,
                   lifted, err));
    TRY(read_limit(a, "waiting", "waiting_max", &q->has_waiting_max, &q->waiting_max, lifted, err));
    TRY(read_limit(a, "priority-max", "priority_max", &q->has_priority_max, &q->priority_max,
                   lifted, err));
    TRY(read_limit(a, "time-limit", "time_limit_ms", &q->has_time_limit_ms, &q->time_limit_ms,
                   lifted, err));
    read_flag(a, "preempts", &q->has_preempts, &q->preempts);
    read_flag(a, "preemptible", &q->has_preemptible, &q->preemptible);
    read_flag(a, "accepts", &q->has_accepts, &q->accepts);
    read_flag(a, "starts", &q->has_starts, &q->starts);
    const struct option *options = a->command->options;
    for (size_t i = 0; options[i].name != NULL; i++) {
        if (args_has(a, options[i].name)) {
            return 0;
        }
    }
    return nothing_to_set("queue", err);
}

int cmd_queue_set(struct ctl *ctl, struct err *err)
{
    Ds__QueueSet request = DS__QUEUE_SET__INIT;
    Ds__Queue *reply = NULL;
    struct lifted lifted = {.count = 0};
    TRY(read_queue(&ctl->args, &request, &lifted, err));
    request.name = (char *)(uintptr_t)ctl->args.words[0];
    request.lift = lifted.names;
    request.n_lift = lifted.count;
    TRY(session_call(&ctl->session, RPC_QUEUE_SET, &request, &reply, err));
    return print_set(ctl, "queue", output_json(reply, "ds/queue/v1"), &queue_listing, err);
}

/* ---- accounts */

static void used_cell(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_gpu_hours(out, (uint64_t)json_number_value(value));
}

static const struct column account_columns[] = {
    {"ACCOUNT", "name", COLUMN_LONG, NULL, NULL},
    {"SHARES", "shares", COLUMN_RIGHT, NULL, NULL},
    {"USED", "used_gpu_ms", COLUMN_RIGHT, used_cell, NULL},
    {"RUNNING", "jobs_running", COLUMN_RIGHT, NULL, NULL},
    {"WAITING", "jobs_waiting", COLUMN_RIGHT, NULL, NULL},
    {"NODES", "nodes_used", COLUMN_RIGHT, NULL, NULL},
    {"NODES-MAX", "nodes_max", COLUMN_RIGHT, NULL, NULL},
    {"ACCEPTS", "accepts", 0, cell_yes, NULL},
    {"BY", "by", COLUMN_WIDE, NULL, NULL},
    {"CHANGED", "changed_at", COLUMN_WIDE, cell_time, NULL},
};
static const struct listing account_listing = LISTING("account", "name", account_columns);

static const struct column user_columns[] = {
    {"USER", "user", COLUMN_LONG, NULL, NULL},
    {"USED", "used_gpu_ms", COLUMN_RIGHT, used_cell, NULL},
};

int cmd_account_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__AccountList *reply = NULL;
    TRY(session_call(&ctl->session, RPC_ACCOUNT_LIST, &request, &reply, err));
    return output_list(&ctl->output, out, output_json(reply, "ds/account-list/v1"),
                       &account_listing, err);
}

static void account_page(const struct output *o, struct buf *out, const json_t *a)
{
    page_title(o, out, "account", pick_text(a, "name"), "", "");
    page_jobs(out, a);
    page_label(out, "shares");
    buf_printf(out, "%lld\n", (long long)pick_int(a, "shares"));
    page_label(out, "used");
    used_cell(out, a, pick(a, "used_gpu_ms"));
    buf_append_str(out, " GPU-hours, weighted and faded\n");
    page_limit(out, "nodes", a, "nodes_max");
    page_flag(out, "accepts", a, "accepts");
    page_changed(out, a);
    page_table(o, out, "users", json_object_get(a, "users"), user_columns,
               sizeof user_columns / sizeof user_columns[0]);
}

int cmd_account_show(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__AccountName request = DS__ACCOUNT_NAME__INIT;
    Ds__Account *reply = NULL;
    request.name = (char *)(uintptr_t)ctl->args.words[0];
    TRY(session_call(&ctl->session, RPC_ACCOUNT_SHOW, &request, &reply, err));
    return output_one(&ctl->output, out, output_json(reply, "ds/account/v1"), &account_listing,
                      account_page, err);
}

int cmd_account_set(struct ctl *ctl, struct err *err)
{
    const struct args *a = &ctl->args;
    Ds__AccountSet request = DS__ACCOUNT_SET__INIT;
    Ds__Account *reply = NULL;
    struct lifted lifted = {.count = 0};
    request.name = (char *)(uintptr_t)a->words[0];
    request.has_shares = args_has(a, "shares");
    TRY(args_i64(a, "shares", &request.shares, err));
    TRY(read_limit(a, "nodes", "nodes_max", &request.has_nodes_max, &request.nodes_max, &lifted,
                   err));
    read_flag(a, "accepts", &request.has_accepts, &request.accepts);
    request.lift = lifted.names;
    request.n_lift = lifted.count;
    if (!request.has_shares && !request.has_nodes_max && !request.has_accepts &&
        lifted.count == 0) {
        return nothing_to_set("account", err);
    }
    TRY(session_call(&ctl->session, RPC_ACCOUNT_SET, &request, &reply, err));
    return print_set(ctl, "account", output_json(reply, "ds/account/v1"), &account_listing, err);
}

/* ---- quotas */

static const struct column quota_columns[] = {
    {"ID", "id", COLUMN_RIGHT, NULL, NULL},
    {"USER", "user", 0, NULL, NULL},
    {"ACCOUNT", "account", 0, NULL, NULL},
    {"CLASS", "class", 0, NULL, NULL},
    {"NODES", "nodes", COLUMN_RIGHT, NULL, NULL},
    {"EXPIRES", "expires_at", 0, cell_time, NULL},
    {"EXPIRED", "expired", COLUMN_WIDE, cell_yes, NULL},
    {"BY", "by", 0, NULL, NULL},
    {"SET", "set_at", COLUMN_WIDE, cell_time, NULL},
    {"REASON", "reason", 0, NULL, NULL},
};
static const struct listing quota_listing = LISTING("quota", "id", quota_columns);

int cmd_quota_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__QuotaListRequest request = DS__QUOTA_LIST_REQUEST__INIT;
    Ds__QuotaList *reply = NULL;
    request.has_all = 1;
    request.all = args_has(&ctl->args, "all");
    TRY(session_call(&ctl->session, RPC_QUOTA_LIST, &request, &reply, err));
    return output_list(&ctl->output, out, output_json(reply, "ds/quota-list/v1"), &quota_listing,
                       err);
}

static int read_quota(const struct args *a, Ds__QuotaSet *q, struct err *err)
{
    const char *nodes = args_get(a, "nodes");
    const char *expires = args_get(a, "expires");
    q->user = (char *)(uintptr_t)args_get(a, "user");
    q->account = (char *)(uintptr_t)args_get(a, "account");
    q->class_ = (char *)(uintptr_t)args_get(a, "class");
    q->reason = (char *)(uintptr_t)args_get(a, "reason");
    if (q->user == NULL && q->account == NULL && q->class_ == NULL) {
        return err_set(err, ERR_USAGE,
                       "quota set: whose is missing (add --user, --account or --class; '*' is "
                       "each one)");
    }
    if (nodes == NULL) {
        return err_set(err, ERR_USAGE,
                       "quota set: how many is missing (add --nodes 8, or --nodes none to end it)");
    }
    q->has_nodes = strcmp(nodes, "none") != 0;
    if (q->has_nodes) {
        TRY(args_i64(a, "nodes", &q->nodes, err));
    }
    if (expires == NULL || strcmp(expires, "never") == 0) {
        return 0;
    }
    q->has_expires_at = 1;
    return when_parse(expires, clock_wall_ms(), &q->expires_at, err) == 0
               ? 0
               : err_wrap(err, "--expires");
}

int cmd_quota_set(struct ctl *ctl, struct err *err)
{
    Ds__QuotaSet request = DS__QUOTA_SET__INIT;
    Ds__Empty *reply = NULL;
    TRY(read_quota(&ctl->args, &request, err));
    TRY(session_call(&ctl->session, RPC_QUOTA_SET, &request, &reply, err));
    json_t *object = output_json(reply, "ds/quota-set/v1");
    struct buf line = {0};
    if (!output_object(&ctl->output, &line, object) && output_for_people(&ctl->output)) {
        buf_append_str(&line, request.has_nodes ? "set the quota\n" : "ended the quota\n");
    }
    json_decref(object);
    return ctl_write(ctl, &line, err);
}
