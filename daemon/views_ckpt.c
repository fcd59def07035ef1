#include <inttypes.h>
#include <string.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

/* The columns of VIEWS_CKPT_COLUMNS. */
Ds__Ckpt *views_ckpt_row(sqlite3_stmt *stmt)
{
    Ds__Ckpt *c = mem_alloc(sizeof *c);
    ds__ckpt__init(c);
    c->id = views_u64(stmt, 0);
    c->job = views_u64(stmt, 1);
    c->step = views_u64(stmt, 2);
    c->epoch = views_u64(stmt, 3);
    c->state = views_text(stmt, 4);
    c->bytes = views_u64(stmt, 5);
    c->shards = (uint32_t)views_u64(stmt, 6);
    c->sha256 = views_text(stmt, 7);
    c->has_committed_at = views_has(stmt, 8);
    c->committed_at = views_i64(stmt, 8);
    c->pinned = views_i64(stmt, 9) != 0;
    c->path = views_text(stmt, 10);
    c->reason = views_text(stmt, 11);
    c->has_given_up = 1;
    c->given_up = views_i64(stmt, 12) != 0;
    return c;
}

static int fill_list(struct views *v, const Ds__CkptListRequest *request, Ds__CkptList *list,
                     struct err *err)
{
    sqlite3_stmt *stmt;
    if (request->has_job) {
        bool ended;
        TRY(views_job_ended(v, request->job, &ended, err));
    }
    TRY(views_query(v,
                    "SELECT " VIEWS_CKPT_COLUMNS
                    " FROM checkpoint WHERE ?1 IS NULL OR job_id = ?1 ORDER BY id DESC LIMIT 10000",
                    &stmt, err));
    if (request->has_job) {
        sqlite3_bind_int64(stmt, 1, (int64_t)request->job);
    }
    size_t bytes = 0;
    while (bytes < VIEWS_BYTES_MAX) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            break;
        }
        Ds__Ckpt *ckpt = views_ckpt_row(stmt);
        views_push(&list->items, &list->n_items, ckpt);
        bytes += ds__ckpt__get_packed_size(ckpt) + 4;
    }
    sqlite3_reset(stmt);
    views_reverse(list->items, list->n_items);
    return 0;
}

int views_ckpt_list(struct views *v, const Ds__CkptListRequest *request, Ds__CkptList **out,
                    struct err *err)
{
    Ds__CkptList *list = mem_alloc(sizeof *list);
    ds__ckpt_list__init(list);
    int rc = fill_list(v, request, list, err);
    if (rc != 0) {
        ds__ckpt_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

static int add_shards(struct views *v, Ds__Ckpt *ckpt, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(
        v,
        "SELECT rank, file, bytes, xxh3, sha256 FROM ckpt_shard WHERE ckpt_id = ?1 ORDER BY rank",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)ckpt->id);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        Ds__CkptShard *s = mem_alloc(sizeof *s);
        ds__ckpt_shard__init(s);
        views_push(&ckpt->shard_list, &ckpt->n_shard_list, s);
        s->rank = (uint32_t)views_u64(stmt, 0);
        s->file = views_text(stmt, 1);
        s->bytes = views_u64(stmt, 2);
        s->xxh3 = views_text(stmt, 3);
        s->sha256 = views_text(stmt, 4);
    }
}

static int add_layout(struct views *v, Ds__Ckpt *ckpt, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, "SELECT layout FROM checkpoint WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)ckpt->id);
    TRY(views_step(v, stmt, &row, err));
    ckpt->layout = row ? views_text(stmt, 0) : NULL;
    sqlite3_reset(stmt);
    return 0;
}

static int no_ckpt(uint64_t id, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "there is no checkpoint %llu (dsctl ckpt list JOB)",
                   (unsigned long long)id);
}

int views_ckpt(struct views *v, uint64_t id, bool whole, Ds__Ckpt **out, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, "SELECT " VIEWS_CKPT_COLUMNS " FROM checkpoint WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return no_ckpt(id, err);
    }
    Ds__Ckpt *ckpt = views_ckpt_row(stmt);
    sqlite3_reset(stmt);
    int rc = whole ? add_shards(v, ckpt, err) : 0;
    rc = rc == 0 && whole ? add_layout(v, ckpt, err) : rc;
    if (rc != 0) {
        ds__ckpt__free_unpacked(ckpt, NULL);
        return rc;
    }
    *out = ckpt;
    return 0;
}

int views_ckpt_published(struct views *v, uint64_t id, bool *published, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, "SELECT published FROM checkpoint WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return no_ckpt(id, err);
    }
    *published = views_i64(stmt, 0) != 0;
    sqlite3_reset(stmt);
    return 0;
}

int views_job_ckpt_root(struct views *v, uint64_t id, int64_t *submitted_ms, char **root,
                        struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, "SELECT submitted_ms, ckpt_dir FROM job WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return err_set(err, ERR_NOT_FOUND, "there is no job %" PRIu64 " (dsctl job list --all)",
                       id);
    }
    *submitted_ms = views_i64(stmt, 0);
    *root = views_text(stmt, 1);
    sqlite3_reset(stmt);
    return 0;
}
