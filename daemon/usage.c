/* What jobs used: the closed intervals of the ledger, and the meters that still run. */
#include <stdlib.h>
#include <string.h>

#include "daemon/core/ledger.h"
#include "daemon/views_db.h"
#include "lib/mem.h"

void usage_fini(struct usage_sums *sums)
{
    free(sums->jobs);
    *sums = (struct usage_sums){0};
}

static void add(struct usage *sum, int64_t ms, const char *category, int64_t cost)
{
    sum->gpu_ms += ms;
    sum->productive_ms += strcmp(category, "productive") == 0 ? ms : 0;
    sum->cost_micro_usd += cost;
}

static struct usage *sum_of(struct usage_sums *sums, uint64_t job)
{
    if (job >= sums->capacity) {
        size_t old = sums->capacity;
        void *jobs = sums->jobs;
        mem_grow(&jobs, &sums->capacity, job + 1, sizeof sums->jobs[0]);
        sums->jobs = jobs;
        memset(sums->jobs + old, 0, (sums->capacity - old) * sizeof sums->jobs[0]);
    }
    return &sums->jobs[job];
}

/* Of jobs that lost some more. */
static int catch_up_lost(struct views *v, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    struct lost_spans spans;
    TRY(views_query(v, "SELECT coalesce(max(rowid), 0) FROM lost_work", &stmt, err));
    TRY(views_step(v, stmt, &row, err));
    int64_t newest = row ? views_i64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    if (newest == v->usage.lost_rowid) {
        return 0;
    }
    TRY(lost_read(v, &spans, err));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < spans.count; i++) {
        rc = lost_of_job(v, &spans, spans.items[i].job,
                         &sum_of(&v->usage, spans.items[i].job)->lost_ms, err);
    }
    lost_fini(&spans);
    v->usage.lost_rowid = rc == 0 ? newest : v->usage.lost_rowid;
    return rc;
}

int views_warm(struct views *v, size_t limit, bool *more, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT seq, job_id, category, end_ms - start_ms, cost_micro_usd FROM ledger"
                    " WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                    &stmt, err));
    sqlite3_bind_int64(stmt, 1, v->usage.seq);
    sqlite3_bind_int64(stmt, 2, (int64_t)limit);
    for (size_t rows = 0;; rows++) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            *more = rows == limit;
            return 0;
        }
        v->usage.seq = views_i64(stmt, 0);
        if (views_has(stmt, 1)) {
            add(sum_of(&v->usage, views_u64(stmt, 1)), views_i64(stmt, 3),
                (const char *)sqlite3_column_text(stmt, 2), views_i64(stmt, 4));
        }
    }
}

int usage_catch_up(struct views *v, struct err *err)
{
    bool more;
    TRY(views_warm(v, INT64_MAX, &more, err));
    return catch_up_lost(v, err);
}

int usage_open_meters(struct views *v, int64_t now_ms, struct usage_open **open, size_t *count,
                      struct err *err)
{
    *open = NULL;
    *count = 0;
    size_t capacity = 0;
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT g.job_id, g.category, g.since_ms, p.micro_usd_per_gpu_hour"
                    " FROM gpu g JOIN price p ON p.id = g.price_id"
                    " WHERE g.job_id IS NOT NULL ORDER BY g.job_id",
                    &stmt, err));
    for (;;) {
        bool row;
        int rc = views_step(v, stmt, &row, err);
        if (rc != 0) {
            free(*open);
            *open = NULL;
            return rc;
        }
        if (!row) {
            return 0;
        }
        uint64_t job = views_u64(stmt, 0);
        if (*count == 0 || (*open)[*count - 1].job != job) {
            void *items = *open;
            mem_grow(&items, &capacity, *count + 1, sizeof **open);
            *open = items;
            (*open)[(*count)++] = (struct usage_open){.job = job};
        }
        int64_t ms = now_ms - views_i64(stmt, 2);
        if (ms > 0) {
            add(&(*open)[*count - 1].sum, ms, (const char *)sqlite3_column_text(stmt, 1),
                ledger_cost(ms, views_i64(stmt, 3)));
        }
    }
}

static int compare(const void *key, const void *item)
{
    uint64_t job = *(const uint64_t *)key;
    uint64_t other = ((const struct usage_open *)item)->job;
    return job < other ? -1 : job > other;
}

struct usage usage_of_job(const struct views *v, uint64_t job, const struct usage_open *open,
                          size_t count)
{
    struct usage sum = {0};
    if (job < v->usage.capacity) {
        sum = v->usage.jobs[job];
        sum.productive_ms -= sum.lost_ms;
    }
    const struct usage_open *running =
        count > 0 ? bsearch(&job, open, count, sizeof *open, compare) : NULL;
    if (running != NULL) {
        sum.gpu_ms += running->sum.gpu_ms;
        sum.productive_ms += running->sum.productive_ms;
        sum.cost_micro_usd += running->sum.cost_micro_usd;
    }
    return sum;
}
