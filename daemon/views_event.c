/* The history, and the cluster at a glance. */
#include "daemon/views_db.h"
#include "lib/mem.h"

#define EVENT_LIMIT     100
#define EVENT_LIMIT_MAX 10000

/* The columns of VIEWS_EVENT_COLUMNS. */
Ds__Event *views_event_row(sqlite3_stmt *stmt)
{
    Ds__Event *e = mem_alloc(sizeof *e);
    ds__event__init(e);
    e->seq = views_u64(stmt, 0);
    e->at = views_i64(stmt, 1);
    e->kind = views_text(stmt, 2);
    e->has_job = views_has(stmt, 3);
    e->job = views_u64(stmt, 3);
    e->has_epoch = views_has(stmt, 4);
    e->epoch = views_u64(stmt, 4);
    e->node = views_text(stmt, 5);
    e->text = views_text(stmt, 6);
    return e;
}

static int fill_events(struct views *v, const Ds__EventListRequest *r, Ds__EventList *list,
                       struct err *err)
{
    uint32_t limit = r->has_limit && r->limit > 0 ? r->limit : EVENT_LIMIT;
    sqlite3_stmt *stmt;
    if (r->has_since) {
        TRY(views_query(v,
                        "SELECT " VIEWS_EVENT_COLUMNS " WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
                        &stmt, err));
        sqlite3_bind_int64(stmt, 1, (int64_t)r->since);
    } else {
        TRY(views_query(v, "SELECT " VIEWS_EVENT_COLUMNS " ORDER BY e.seq DESC LIMIT ?2", &stmt,
                        err));
    }
    sqlite3_bind_int64(stmt, 2, limit < EVENT_LIMIT_MAX ? limit : EVENT_LIMIT_MAX);
    size_t bytes = 0;
    while (bytes < VIEWS_BYTES_MAX) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            break;
        }
        Ds__Event *event = views_event_row(stmt);
        views_push(&list->items, &list->n_items, event);
        bytes += ds__event__get_packed_size(event) + 4;
    }
    sqlite3_reset(stmt);
    if (!r->has_since) {
        views_reverse(list->items, list->n_items);
    }
    return 0;
}

int views_events(struct views *v, const Ds__EventListRequest *request, Ds__EventList **out,
                 struct err *err)
{
    Ds__EventList *list = mem_alloc(sizeof *list);
    ds__event_list__init(list);
    int rc = fill_events(v, request, list, err);
    if (rc != 0) {
        ds__event_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

/* ------------------------------------------------------------------ cluster status */

static int count_states(struct views *v, const char *sql, Ds__StateCount ***items, size_t *count,
                        struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, sql, &stmt, err));
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__StateCount *c = mem_alloc(sizeof *c);
        ds__state_count__init(c);
        views_push(items, count, c);
        c->state = views_text(stmt, 0);
        c->count = views_u64(stmt, 1);
    }
}

/* By the two indexes on the state, and not by the rows. */
#define ENDED_STATES "('COMPLETED','FAILED','CANCELLED')"
#define COUNT_JOBS                                                                                 \
    "SELECT state, count(*) FROM job INDEXED BY job_live WHERE state NOT IN " ENDED_STATES         \
    " GROUP BY state UNION ALL "                                                                   \
    "SELECT state, count(*) FROM job INDEXED BY job_ended WHERE state IN " ENDED_STATES            \
    " GROUP BY state ORDER BY 1"

static int fill_cluster(struct views *v, Ds__ClusterStatus *status, struct err *err)
{
    TRY(count_states(v, "SELECT state, count(*) FROM node GROUP BY state ORDER BY state",
                     &status->nodes, &status->n_nodes, err));
    TRY(count_states(v, COUNT_JOBS, &status->jobs, &status->n_jobs, err));
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(
        v,
        "SELECT (SELECT count(*) FROM gpu WHERE present = 1),"
        " (SELECT count(*) FROM gpu WHERE job_id IS NOT NULL), (SELECT max(seq) FROM event),"
        " (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)",
        &stmt, err));
    TRY(views_step(v, stmt, &row, err));
    status->gpus = views_u64(stmt, 0);
    status->gpus_allocated = views_u64(stmt, 1);
    status->last_event = views_u64(stmt, 2);
    status->database_bytes = views_u64(stmt, 3);
    sqlite3_reset(stmt);
    return 0;
}

int views_cluster(struct views *v, Ds__ClusterStatus **out, struct err *err)
{
    Ds__ClusterStatus *status = mem_alloc(sizeof *status);
    ds__cluster_status__init(status);
    int rc = views_begin(v, err);
    if (rc == 0) {
        rc = fill_cluster(v, status, err);
        views_end(v);
    }
    if (rc != 0) {
        ds__cluster_status__free_unpacked(status, NULL);
        return rc;
    }
    *out = status;
    return 0;
}
