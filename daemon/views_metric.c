/* The steps of a job, and where its logs are. */
#include <stdio.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

#define METRIC_LIMIT     10000
#define METRIC_LIMIT_MAX 40000

static void read_metric(sqlite3_stmt *stmt, Ds__Metric *m)
{
    m->step = views_u64(stmt, 0);
    m->epoch = views_u64(stmt, 1);
    m->tokens = views_u64(stmt, 2);
    m->loss = views_double(stmt, 3);
    m->has_mtp_loss = views_has(stmt, 4);
    m->mtp_loss = views_double(stmt, 4);
    m->has_grad_norm = views_has(stmt, 5);
    m->grad_norm = views_double(stmt, 5);
    m->has_lr = views_has(stmt, 6);
    m->lr = views_double(stmt, 6);
    m->has_tokens_per_s = views_has(stmt, 7);
    m->tokens_per_s = views_double(stmt, 7);
    m->has_balance_maxvio = views_has(stmt, 8);
    m->balance_maxvio = views_double(stmt, 8);
    m->has_valid_loss = views_has(stmt, 9);
    m->valid_loss = views_double(stmt, 9);
    m->has_step_ms = views_has(stmt, 10);
    m->step_ms = views_u64(stmt, 10);
    m->has_valid_maxvio = views_has(stmt, 11);
    m->valid_maxvio = views_double(stmt, 11);
    m->layer_maxvio = views_text(stmt, 12);
}

static int fill_metrics(struct views *v, const Ds__MetricRead *r, Ds__MetricList *list,
                        struct err *err)
{
    uint32_t limit = r->has_limit && r->limit > 0 ? r->limit : METRIC_LIMIT;
    sqlite3_stmt *stmt;
    TRY(views_query(
        v,
        "SELECT step, epoch, tokens, loss, mtp_loss, grad_norm, lr, tokens_per_s, balance_maxvio,"
        " valid_loss, step_ms, valid_maxvio, layer_maxvio"
        " FROM metric WHERE job_id = ?1 AND step >= ?2 ORDER BY step LIMIT ?3",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)r->job);
    sqlite3_bind_int64(stmt, 2, r->has_from_step ? (int64_t)r->from_step : 0);
    sqlite3_bind_int64(stmt, 3, limit < METRIC_LIMIT_MAX ? limit : METRIC_LIMIT_MAX);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__Metric *m = mem_alloc(sizeof *m);
        ds__metric__init(m);
        views_push(&list->items, &list->n_items, m);
        read_metric(stmt, m);
    }
}

int views_metrics(struct views *v, const Ds__MetricRead *request, Ds__MetricList **out,
                  struct err *err)
{
    bool ended;
    TRY(views_job_ended(v, request->job, &ended, err));
    Ds__MetricList *list = mem_alloc(sizeof *list);
    ds__metric_list__init(list);
    int rc = fill_metrics(v, request, list, err);
    if (rc != 0) {
        ds__metric_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

int views_log_place(struct views *v, uint64_t job, uint32_t rank, struct views_log_place *place,
                    struct err *err)
{
    bool row;
    sqlite3_stmt *stmt;
    TRY(views_query(v, "SELECT epoch, gpus_per_node FROM job WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return views_no_job(job, err);
    }
    place->epoch = place->epoch == 0 ? views_u64(stmt, 0) : place->epoch;
    uint32_t a_node = views_i64(stmt, 1) > 0 ? (uint32_t)views_i64(stmt, 1) : 1;
    sqlite3_reset(stmt);
    if (place->epoch == 0) {
        return err_set(err, ERR_NOT_FOUND, "job %llu has no logs: it never started",
                       (unsigned long long)job);
    }

    TRY(views_query(v,
                    "SELECT a.node_id, n.name FROM attempt_node a JOIN node n ON n.id = a.node_id"
                    " WHERE a.job_id = ?1 AND a.epoch = ?2 AND a.node_rank = ?3",
                    &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job);
    sqlite3_bind_int64(stmt, 2, (int64_t)place->epoch);
    sqlite3_bind_int64(stmt, 3, rank / a_node);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return err_set(err, ERR_NOT_FOUND, "job %llu has no rank %u in attempt %llu",
                       (unsigned long long)job, rank, (unsigned long long)place->epoch);
    }
    place->node_id = views_u64(stmt, 0);
    snprintf(place->node, sizeof place->node, "%s", (const char *)sqlite3_column_text(stmt, 1));
    sqlite3_reset(stmt);
    return 0;
}
