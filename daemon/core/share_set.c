/* What operators change about queues, accounts and quotas. Each change is a row and an event with
 * who made it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/share.h"
#include "lib/err.h"

#define NAME_MAX_BYTES 63

static bool name_is_valid(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = name != NULL ? strlen(name) : 0;
    return len > 0 && len <= NAME_MAX_BYTES && strchr("._-", name[0]) == NULL &&
           strspn(name, allowed) == len;
}

static const char *who(const char *user)
{
    return user != NULL ? user : "unknown";
}

/* Limits are at least 0, or none. */
static bool limit_is_valid(int64_t value)
{
    return value == ROW_NONE || value >= 0;
}

static const char *wrong_in_queue(const struct input_queue_set *q)
{
    if (!name_is_valid(q->name)) {
        return "a queue's name has letters, digits, . _ -, at most 63, the first a letter or digit";
    }
    if ((q->fields & QUEUE_FIELD_WEIGHT) != 0 &&
        (q->weight_milli < 0 || q->weight_milli > 1000000)) {
        return "a weight is between 0 and 1000";
    }
    if ((q->fields & QUEUE_FIELD_PRIORITY) != 0 &&
        (q->priority < -1000000 || q->priority > 1000000)) {
        return "a priority is between -1000000 and 1000000";
    }
    const struct {
        uint32_t field;
        int64_t value;
    } limits[] = {{QUEUE_FIELD_NODES_MAX, q->nodes_max},
                  {QUEUE_FIELD_JOBS_MAX, q->jobs_max},
                  {QUEUE_FIELD_USER_NODES_MAX, q->user_nodes_max},
                  {QUEUE_FIELD_USER_JOBS_MAX, q->user_jobs_max},
                  {QUEUE_FIELD_WAITING_MAX, q->waiting_max},
                  {QUEUE_FIELD_TIME_LIMIT, q->time_limit_ms}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if ((q->fields & limits[i].field) != 0 && !limit_is_valid(limits[i].value)) {
            return "a limit is at least 0";
        }
    }
    return NULL;
}

static void change_queue(struct queue_row *row, const struct input_queue_set *q)
{
#define TAKE(flag, member)                                                                         \
    if ((q->fields & (flag)) != 0) {                                                               \
        row->member = q->member;                                                                   \
    }
    TAKE(QUEUE_FIELD_PRIORITY, priority)
    TAKE(QUEUE_FIELD_WEIGHT, weight_milli)
    TAKE(QUEUE_FIELD_NODES_MAX, nodes_max)
    TAKE(QUEUE_FIELD_JOBS_MAX, jobs_max)
    TAKE(QUEUE_FIELD_USER_NODES_MAX, user_nodes_max)
    TAKE(QUEUE_FIELD_USER_JOBS_MAX, user_jobs_max)
    TAKE(QUEUE_FIELD_WAITING_MAX, waiting_max)
    TAKE(QUEUE_FIELD_PRIORITY_MAX, priority_max)
    TAKE(QUEUE_FIELD_TIME_LIMIT, time_limit_ms)
    TAKE(QUEUE_FIELD_PREEMPTS, preempts)
    TAKE(QUEUE_FIELD_PREEMPTIBLE, preemptible)
    TAKE(QUEUE_FIELD_ACCEPTS, accepts)
    TAKE(QUEUE_FIELD_STARTS, starts)
#undef TAKE
}

void share_queue_set(struct core *core, const struct input *in)
{
    const struct input_queue_set *q = &in->u.queue;
    const char *problem = wrong_in_queue(q);
    if (problem != NULL) {
        core_reply(core, in, ERR_INVALID, "queue %.80s: %s", q->name != NULL ? q->name : "",
                   problem);
        return;
    }
    bool is_new = share_queue(core, q->name) == NULL;
    struct queue *queue = share_queue_make(core, q->name);
    if ((q->fields & QUEUE_FIELD_WEIGHT) != 0) {
        share_reweigh(core, queue, q->weight_milli);
    }
    change_queue(&queue->row, q);
    row_set_text(&queue->row.by_user, who(q->user));
    queue->row.changed_ms = core->now_ms;
    core_mark(core, TABLE_QUEUE, &queue->row);
    core_event(core, "queue.set", 0, 0, 0, "%s %s queue %s", who(q->user),
               is_new ? "makes" : "changes", q->name);
    core->sched_due = true;
    core_reply(core, in, 0, "%s", "");
}

void share_account_set(struct core *core, const struct input *in)
{
    const struct input_account_set *a = &in->u.account;
    bool bad_shares =
        (a->fields & ACCOUNT_FIELD_SHARES) != 0 && (a->shares < 0 || a->shares > 1000000);
    bool bad_nodes = (a->fields & ACCOUNT_FIELD_NODES_MAX) != 0 && !limit_is_valid(a->nodes_max);
    if (!name_is_valid(a->name) || bad_shares || bad_nodes) {
        core_reply(core, in, ERR_INVALID, "account %.80s: %s", a->name != NULL ? a->name : "",
                   bad_shares  ? "shares are between 0 and 1000000"
                   : bad_nodes ? "a limit is at least 0"
                               : "a name has letters, digits, . _ -, at most 63, the first a "
                                 "letter or digit");
        return;
    }
    bool is_new = share_account(core, a->name) == NULL;
    struct account *account = share_account_make(core, a->name);
    if ((a->fields & ACCOUNT_FIELD_SHARES) != 0) {
        account->row.shares = a->shares;
    }
    if ((a->fields & ACCOUNT_FIELD_NODES_MAX) != 0) {
        account->row.nodes_max = a->nodes_max;
    }
    if ((a->fields & ACCOUNT_FIELD_ACCEPTS) != 0) {
        account->row.accepts = a->accepts;
    }
    row_set_text(&account->row.by_user, who(a->user));
    account->row.changed_ms = core->now_ms;
    core_mark(core, TABLE_ACCOUNT, &account->row);
    core_event(core, "account.set", 0, 0, 0, "%s %s account %s", who(a->user),
               is_new ? "makes" : "changes", a->name);
    core->sched_due = true;
    core_reply(core, in, 0, "%s", "");
}

/* ---------------------------------------------------------------- quotas */

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static struct quota *find_quota(const struct core *core, const struct input_quota_set *q)
{
    for (size_t i = 0; i < core->quota_count; i++) {
        const struct quota_row *row = &core->quotas[i]->row;
        if (same_text(row->user, q->user) && same_text(row->account, q->account) &&
            same_text(row->class, q->class)) {
            return core->quotas[i];
        }
    }
    return NULL;
}

static struct quota *make_quota(struct core *core, const struct input_quota_set *q)
{
    struct quota_row row = {.id = core->quota_count + 1};
    row_set_text(&row.user, q->user);
    row_set_text(&row.account, q->account);
    row_set_text(&row.class, q->class);
    share_load_quota(core, &row);
    return core->quotas[core->quota_count - 1];
}

static const char *wrong_in_quota(const struct core *core, const struct input_quota_set *q)
{
    bool known = q->class == NULL;
    for (size_t i = 0; i < core->config.policy.class_count; i++) {
        known |= q->class != NULL && strcmp(core->config.policy.classes[i].name, q->class) == 0;
    }
    if (!known) {
        return "no such class of priorities (see scheduler.classes in dsd.yaml)";
    }
    if (q->user == NULL && q->account == NULL && q->class == NULL) {
        return "give a user, an account or a class that it is for";
    }
    if (!limit_is_valid(q->nodes)) {
        return "nodes are at least 0";
    }
    if (q->expires_ms != ROW_NONE && q->expires_ms <= core->now_ms) {
        return "it would have expired already";
    }
    return NULL;
}

void share_quota_set(struct core *core, const struct input *in)
{
    const struct input_quota_set *q = &in->u.quota;
    const char *problem = wrong_in_quota(core, q);
    if (problem != NULL) {
        core_reply(core, in, ERR_INVALID, "quota: %s", problem);
        return;
    }
    struct quota *quota = find_quota(core, q);
    if (q->nodes == ROW_NONE && (quota == NULL || share_quota_is_over(core, quota))) {
        core_reply(core, in, ERR_NOT_FOUND, "there is no such quota (dsctl account list)");
        return;
    }
    char before[64] = "none";
    if (quota != NULL && !share_quota_is_over(core, quota)) {
        snprintf(before, sizeof before, "%" PRId64 " nodes", quota->row.nodes);
    }
    quota = quota != NULL ? quota : make_quota(core, q);
    if (q->nodes == ROW_NONE) {
        quota->row.expires_ms = core->now_ms;
    } else {
        quota->row.nodes = q->nodes;
        quota->row.expires_ms = q->expires_ms;
    }
    row_set_text(&quota->row.reason, q->reason);
    row_set_text(&quota->row.by_user, who(q->by_user));
    quota->row.set_ms = core->now_ms;
    core_mark(core, TABLE_QUOTA, &quota->row);
    char after[64] = "none", until[64] = "";
    if (q->nodes != ROW_NONE) {
        snprintf(after, sizeof after, "%" PRId64 " nodes", q->nodes);
    }
    if (q->nodes != ROW_NONE && q->expires_ms != ROW_NONE) {
        char time[32];
        time_format(q->expires_ms, time, sizeof time);
        snprintf(until, sizeof until, " until %s", time);
        timers_set(&core->timers, TIMER_QUOTA, quota->row.id, q->expires_ms);
    }
    core_event(
        core, "quota.set", 0, 0, 0,
        "%s sets the quota of user %.64s, account %.64s, class %.32s from %s to %s%s%s%.200s",
        who(q->by_user), q->user != NULL ? q->user : "any", q->account != NULL ? q->account : "any",
        q->class != NULL ? q->class : "any", before, after, until, q->reason != NULL ? ": " : "",
        q->reason != NULL ? q->reason : "");
    core->sched_due = true;
    core_reply(core, in, 0, "%s", "");
}

void share_quota_timer(struct core *core, uint64_t id)
{
    const struct quota *quota = core->quotas[id - 1];
    if (share_quota_is_over(core, quota)) {
        core_event(core, "quota.expired", 0, 0, 0,
                   "the quota of user %.64s, account %.64s, class %.32s is over",
                   quota->row.user != NULL ? quota->row.user : "any",
                   quota->row.account != NULL ? quota->row.account : "any",
                   quota->row.class != NULL ? quota->row.class : "any");
        core->sched_due = true;
    } else if (quota->row.expires_ms != ROW_NONE) {
        timers_set(&core->timers, TIMER_QUOTA, id, quota->row.expires_ms);
    }
}
