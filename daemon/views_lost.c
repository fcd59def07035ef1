/* Work that was given up after it was booked (table lost_work): which stretches of a job's time,
 * and how much of its productive time lies in them. The ledger stays as it is; whoever reads it as
 * productive or lost looks here, too. */
#include <stdlib.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

int lost_read(struct views *v, struct lost_spans *spans, struct err *err)
{
    sqlite3_stmt *stmt;
    size_t capacity = 0;
    *spans = (struct lost_spans){0};
    TRY(views_query(v, "SELECT job_id, from_ms, to_ms FROM lost_work ORDER BY job_id, from_ms",
                    &stmt, err));
    for (;;) {
        bool row;
        int rc = views_step(v, stmt, &row, err);
        if (rc != 0) {
            lost_fini(spans);
            return rc;
        }
        if (!row) {
            return 0;
        }
        struct lost_span now = {views_u64(stmt, 0), views_i64(stmt, 1), views_i64(stmt, 2)};
        struct lost_span *last = spans->count > 0 ? &spans->items[spans->count - 1] : NULL;
        if (last != NULL && last->job == now.job && now.from_ms <= last->to_ms) {
            last->to_ms = now.to_ms > last->to_ms ? now.to_ms : last->to_ms;
            continue;
        }
        void *items = spans->items;
        mem_grow(&items, &capacity, spans->count + 1, sizeof *spans->items);
        spans->items = items;
        spans->items[spans->count++] = now;
    }
}

void lost_fini(struct lost_spans *spans)
{
    free(spans->items);
    *spans = (struct lost_spans){0};
}

const struct lost_span *lost_first(const struct lost_spans *spans, uint64_t job)
{
    size_t low = 0, high = spans->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->items[middle].job < job) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < spans->count && spans->items[low].job == job ? &spans->items[low] : NULL;
}

const struct lost_span *lost_next(const struct lost_spans *spans, const struct lost_span *span)
{
    const struct lost_span *next = span + 1;
    return next < spans->items + spans->count && next->job == span->job ? next : NULL;
}

int lost_of_job(struct views *v, const struct lost_spans *spans, uint64_t job, int64_t *ms,
                struct err *err)
{
    *ms = 0;
    for (const struct lost_span *s = lost_first(spans, job); s != NULL; s = lost_next(spans, s)) {
        sqlite3_stmt *stmt;
        bool row;
        TRY(views_query(v,
                        "SELECT coalesce(sum(min(end_ms, ?3) - max(start_ms, ?2)), 0) FROM ledger"
                        " WHERE job_id = ?1 AND category = 'productive' AND start_ms < ?3"
                        " AND end_ms > ?2",
                        &stmt, err));
        sqlite3_bind_int64(stmt, 1, (int64_t)job);
        sqlite3_bind_int64(stmt, 2, s->from_ms);
        sqlite3_bind_int64(stmt, 3, s->to_ms);
        TRY(views_step(v, stmt, &row, err));
        *ms += row ? views_i64(stmt, 0) : 0;
        sqlite3_reset(stmt);
    }
    return 0;
}
