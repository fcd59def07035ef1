#include <stdlib.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

/* What the live jobs of a queue or an account are and have. The literal list lets SQLite use the
 * index of live jobs. */
#define LIVE_COUNTS(column)                                                                        \
    " LEFT JOIN (SELECT j." column " AS whose,"                                                    \
    " sum(j.state IN ('STARTING','RUNNING','STOPPING')) AS running,"                               \
    " sum(j.state IN ('PENDING','HELD','SUSPENDED')) AS waiting,"                                  \
    " sum(CASE WHEN j.state IN ('STARTING','RUNNING','STOPPING') THEN coalesce("                   \
    "(SELECT a.nodes FROM attempt a WHERE a.job_id = j.id AND a.epoch = j.epoch), 0)"              \
    " ELSE 0 END) AS nodes"                                                                        \
    " FROM job j WHERE j.state NOT IN ('COMPLETED','FAILED','CANCELLED') GROUP BY 1) l"            \
    " ON l.whose = t.name WHERE ?1 IS NULL OR t.name = ?1 ORDER BY t.name"

/* ------------------------------------------------------------------ queues */

static Ds__Queue *read_queue(sqlite3_stmt *stmt)
{
    Ds__Queue *q = mem_alloc(sizeof *q);
    ds__queue__init(q);
    q->name = views_text(stmt, 0);
    q->priority = views_i64(stmt, 1);
    q->weight = (double)views_i64(stmt, 2) / 1000;
    q->has_nodes_max = views_has(stmt, 3);
    q->nodes_max = views_i64(stmt, 3);
    q->has_jobs_max = views_has(stmt, 4);
    q->jobs_max = views_i64(stmt, 4);
    q->has_user_nodes_max = views_has(stmt, 5);
    q->user_nodes_max = views_i64(stmt, 5);
    q->has_user_jobs_max = views_has(stmt, 6);
    q->user_jobs_max = views_i64(stmt, 6);
    q->has_waiting_max = views_has(stmt, 7);
    q->waiting_max = views_i64(stmt, 7);
    q->has_priority_max = views_has(stmt, 8);
    q->priority_max = views_i64(stmt, 8);
    q->has_time_limit_ms = views_has(stmt, 9);
    q->time_limit_ms = views_i64(stmt, 9);
    q->preempts = views_i64(stmt, 10) != 0;
    q->preemptible = views_i64(stmt, 11) != 0;
    q->accepts = views_i64(stmt, 12) != 0;
    q->starts = views_i64(stmt, 13) != 0;
    q->by = views_text(stmt, 14);
    q->changed_at = views_i64(stmt, 15);
    q->jobs_running = views_u64(stmt, 16);
    q->jobs_waiting = views_u64(stmt, 17);
    q->nodes_used = views_u64(stmt, 18);
    return q;
}

/* name NULL: all. */
static int fill_queues(struct views *v, const char *name, Ds__QueueList *list, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT t.name, priority, weight_milli, nodes_max, jobs_max, user_nodes_max, "
                    "user_jobs_max, waiting_max, priority_max, time_limit_ms, preempts, "
                    "preemptible, accepts, starts, by_user, changed_ms, l.running, l.waiting, "
                    "l.nodes FROM queue t" LIVE_COUNTS("queue"),
                    &stmt, err));
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        views_push(&list->items, &list->n_items, read_queue(stmt));
    }
}

static int queues(struct views *v, const char *name, Ds__QueueList **out, struct err *err)
{
    Ds__QueueList *list = mem_alloc(sizeof *list);
    ds__queue_list__init(list);
    int rc = fill_queues(v, name, list, err);
    if (rc != 0) {
        ds__queue_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

int views_queue_list(struct views *v, Ds__QueueList **out, struct err *err)
{
    return queues(v, NULL, out, err);
}

int views_queue(struct views *v, const char *name, Ds__Queue **out, struct err *err)
{
    Ds__QueueList *list;
    TRY(queues(v, name, &list, err));
    int rc = 0;
    if (list->n_items == 0) {
        rc = err_set(err, ERR_NOT_FOUND, "there is no queue '%.80s' (dsctl queue list)", name);
    } else {
        *out = list->items[0];
        list->n_items = 0;
    }
    ds__queue_list__free_unpacked(list, NULL);
    return rc;
}

/* ------------------------------------------------------------------ accounts */

static int add_users(struct views *v, Ds__Account *account, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, "SELECT user, gpu_ms FROM fair_usage WHERE account = ?1 ORDER BY user",
                    &stmt, err));
    sqlite3_bind_text(stmt, 1, account->name, -1, SQLITE_STATIC);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__AccountUser *user = mem_alloc(sizeof *user);
        ds__account_user__init(user);
        views_push(&account->users, &account->n_users, user);
        user->user = views_text(stmt, 0);
        user->used_gpu_ms = v->live.used_gpu_ms != NULL
                                ? v->live.used_gpu_ms(v->live.world, account->name, user->user)
                                : views_double(stmt, 1);
        account->used_gpu_ms += user->used_gpu_ms;
    }
}

static int fill_accounts(struct views *v, const char *name, Ds__AccountList *list, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT t.name, shares, nodes_max, accepts, by_user, changed_ms, l.running, "
                    "l.waiting, l.nodes FROM account t" LIVE_COUNTS("account"),
                    &stmt, err));
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Account *a = mem_alloc(sizeof *a);
        ds__account__init(a);
        views_push(&list->items, &list->n_items, a);
        a->name = views_text(stmt, 0);
        a->shares = views_i64(stmt, 1);
        a->has_nodes_max = views_has(stmt, 2);
        a->nodes_max = views_i64(stmt, 2);
        a->accepts = views_i64(stmt, 3) != 0;
        a->by = views_text(stmt, 4);
        a->changed_at = views_i64(stmt, 5);
        a->jobs_running = views_u64(stmt, 6);
        a->jobs_waiting = views_u64(stmt, 7);
        a->nodes_used = views_u64(stmt, 8);
        TRY(add_users(v, a, err));
    }
}

static int accounts(struct views *v, const char *name, Ds__AccountList **out, struct err *err)
{
    Ds__AccountList *list = mem_alloc(sizeof *list);
    ds__account_list__init(list);
    int rc = views_begin(v, err);
    if (rc == 0) {
        rc = fill_accounts(v, name, list, err);
        views_end(v);
    }
    if (rc != 0) {
        ds__account_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

int views_account_list(struct views *v, Ds__AccountList **out, struct err *err)
{
    return accounts(v, NULL, out, err);
}

int views_account(struct views *v, const char *name, Ds__Account **out, struct err *err)
{
    Ds__AccountList *list;
    TRY(accounts(v, name, &list, err));
    int rc = 0;
    if (list->n_items == 0) {
        rc = err_set(err, ERR_NOT_FOUND, "there is no account '%.80s' (dsctl account list)", name);
    } else {
        *out = list->items[0];
        list->n_items = 0;
    }
    ds__account_list__free_unpacked(list, NULL);
    return rc;
}

/* ------------------------------------------------------------------ quotas */

static int fill_quotas(struct views *v, bool all, int64_t now_ms, Ds__QuotaList *list,
                       struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT id, user, account, class, nodes, expires_ms, reason, by_user, set_ms, "
                    "expires_ms IS NOT NULL AND expires_ms <= ?2 FROM quota"
                    " WHERE ?1 OR expires_ms IS NULL OR expires_ms > ?2 ORDER BY id",
                    &stmt, err));
    sqlite3_bind_int(stmt, 1, all);
    sqlite3_bind_int64(stmt, 2, now_ms);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Quota *q = mem_alloc(sizeof *q);
        ds__quota__init(q);
        views_push(&list->items, &list->n_items, q);
        q->id = views_u64(stmt, 0);
        q->user = views_text(stmt, 1);
        q->account = views_text(stmt, 2);
        q->class_ = views_text(stmt, 3);
        q->nodes = views_i64(stmt, 4);
        q->has_expires_at = views_has(stmt, 5);
        q->expires_at = views_i64(stmt, 5);
        q->reason = views_text(stmt, 6);
        q->by = views_text(stmt, 7);
        q->set_at = views_i64(stmt, 8);
        q->expired = views_i64(stmt, 9) != 0;
    }
}

int views_quota_list(struct views *v, bool all, int64_t now_ms, Ds__QuotaList **out,
                     struct err *err)
{
    Ds__QuotaList *list = mem_alloc(sizeof *list);
    ds__quota_list__init(list);
    int rc = fill_quotas(v, all, now_ms, list, err);
    if (rc != 0) {
        ds__quota_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}
