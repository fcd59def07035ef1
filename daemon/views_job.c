#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/views_db.h"
#include "lib/mem.h"

#define LIST_LIMIT 1000

/* Of a job shown whole: the newest so many, and no more bytes than that. */
#define PART_ITEMS_MAX 1000
#define PART_BYTES_MAX (1024u * 1024u)

#define JOB_COLUMNS                                                                                \
    "SELECT j.id, j.name, j.user, j.account, j.queue, j.stage, j.state, j.reason_code, "           \
    "j.reason_text,"                                                                               \
    " j.priority, j.nodes_requested, j.gpus_per_node, j.submitted_ms, j.started_ms, j.ended_ms, "  \
    "j.epoch,"                                                                                     \
    " j.restarts, j.exit_code, j.exit_signal, j.exit_class, j.step, j.steps, j.tokens, j.loss, "   \
    "j.mtp_loss,"                                                                                  \
    " j.tokens_per_s, j.grad_norm, j.valid_loss, c.id, c.step, c.committed_ms,"                    \
    " j.dependencies, j.array_id, j.array_index, j.array_size, j.array_limit, j.nodes_min, "       \
    "j.nodes_max, j.time_limit_ms, j.not_before_ms, j.deadline_ms, j.preemptible, "                \
    "j.min_runtime_ms, j.preempted"                                                                \
    " FROM job j LEFT JOIN checkpoint c ON c.id = j.ckpt_id "

static void fill_reason(Ds__Job *job, const char *code, const char *text)
{
    job->reason = mem_alloc(sizeof *job->reason);
    ds__reason__init(job->reason);
    job->reason->code = mem_strdup(code);
    job->reason->text = mem_strdup(text);
}

/* Waiting jobs are asked for their reason; what is stored (of HELD, FAILED ...) comes second. */
static void read_reason(struct views *v, sqlite3_stmt *stmt, Ds__Job *job)
{
    char code[64];
    char text[1024];
    if (v->live.why != NULL &&
        v->live.why(v->live.world, job->id, code, sizeof code, text, sizeof text)) {
        fill_reason(job, code, text);
    } else if (views_has(stmt, 7)) {
        const char *stored = (const char *)sqlite3_column_text(stmt, 8);
        fill_reason(job, (const char *)sqlite3_column_text(stmt, 7), stored != NULL ? stored : "");
    }
}

static void read_exit(sqlite3_stmt *stmt, Ds__Job *job)
{
    if (!views_has(stmt, 17) && !views_has(stmt, 18) && !views_has(stmt, 19)) {
        return;
    }
    Ds__JobExit *e = mem_alloc(sizeof *e);
    ds__job_exit__init(e);
    job->exit = e;
    e->has_code = views_has(stmt, 17);
    e->code = (int32_t)views_i64(stmt, 17);
    e->has_signal = views_has(stmt, 18);
    e->signal = (int32_t)views_i64(stmt, 18);
    e->class_ = views_text(stmt, 19);
}

static void read_progress(sqlite3_stmt *stmt, Ds__Job *job)
{
    if (views_i64(stmt, 20) == 0 && views_i64(stmt, 21) == 0) {
        return;
    }
    Ds__JobProgress *p = mem_alloc(sizeof *p);
    ds__job_progress__init(p);
    job->progress = p;
    p->has_step = p->has_steps = p->has_tokens = 1;
    p->step = views_u64(stmt, 20);
    p->steps = views_u64(stmt, 21);
    p->tokens = views_u64(stmt, 22);
    p->has_loss = views_has(stmt, 23);
    p->loss = views_double(stmt, 23);
    p->has_mtp_loss = views_has(stmt, 24);
    p->mtp_loss = views_double(stmt, 24);
    p->has_tokens_per_s = views_has(stmt, 25);
    p->tokens_per_s = views_double(stmt, 25);
    p->has_grad_norm = views_has(stmt, 26);
    p->grad_norm = views_double(stmt, 26);
    p->has_valid_loss = views_has(stmt, 27);
    p->valid_loss = views_double(stmt, 27);
}

static void read_checkpoint(sqlite3_stmt *stmt, Ds__Job *job)
{
    if (!views_has(stmt, 28)) {
        return;
    }
    Ds__JobCheckpoint *c = mem_alloc(sizeof *c);
    ds__job_checkpoint__init(c);
    job->last_checkpoint = c;
    c->id = views_u64(stmt, 28);
    c->step = views_u64(stmt, 29);
    c->committed_at = views_i64(stmt, 30);
}

static void read_demands(struct views *v, sqlite3_stmt *stmt, Ds__Job *job)
{
    job->dependency = views_text(stmt, 31);
    job->has_array = job->has_array_index = job->has_array_size = views_has(stmt, 32);
    job->array = views_u64(stmt, 32);
    job->array_index = (uint32_t)views_u64(stmt, 33);
    job->array_size = (uint32_t)views_u64(stmt, 34);
    job->has_array_limit = job->has_array && views_i64(stmt, 35) > 0;
    job->array_limit = (uint32_t)views_u64(stmt, 35);
    job->has_nodes_min = job->has_nodes_max = 1;
    job->nodes_min = (uint32_t)views_u64(stmt, 36);
    job->nodes_max = (uint32_t)views_u64(stmt, 37);
    job->has_time_limit_ms = views_i64(stmt, 38) > 0;
    job->time_limit_ms = views_u64(stmt, 38);
    job->has_not_before_at = views_i64(stmt, 39) > 0;
    job->not_before_at = views_i64(stmt, 39);
    job->has_deadline_at = views_has(stmt, 40);
    job->deadline_at = views_i64(stmt, 40);
    job->has_preemptible = job->has_min_runtime_ms = job->has_preempted = 1;
    job->preemptible = views_i64(stmt, 41) != 0;
    job->min_runtime_ms = views_u64(stmt, 42);
    job->preempted = views_u64(stmt, 43);
    int64_t start_ms =
        v->live.planned != NULL ? v->live.planned(v->live.world, job->id) : INT64_MAX;
    job->has_expected_start_at = start_ms != INT64_MAX;
    job->expected_start_at = job->has_expected_start_at ? start_ms : 0;
}

static Ds__Job *read_job(struct views *v, sqlite3_stmt *stmt)
{
    Ds__Job *job = mem_alloc(sizeof *job);
    ds__job__init(job);
    job->id = views_u64(stmt, 0);
    job->name = views_text(stmt, 1);
    job->user = views_text(stmt, 2);
    job->account = views_text(stmt, 3);
    job->queue = views_text(stmt, 4);
    job->stage = views_text(stmt, 5);
    job->state = views_text(stmt, 6);
    read_reason(v, stmt, job);
    job->priority = views_i64(stmt, 9);
    job->nodes_requested = (uint32_t)views_u64(stmt, 10);
    job->gpus_per_node = (uint32_t)views_u64(stmt, 11);
    job->submitted_at = views_i64(stmt, 12);
    job->has_started_at = views_has(stmt, 13);
    job->started_at = views_i64(stmt, 13);
    job->has_ended_at = views_has(stmt, 14);
    job->ended_at = views_i64(stmt, 14);
    job->attempt = job->epoch = views_u64(stmt, 15);
    job->restarts = views_u64(stmt, 16);
    read_exit(stmt, job);
    read_progress(stmt, job);
    read_checkpoint(stmt, job);
    read_demands(v, stmt, job);
    return job;
}

static int attempt_nodes(struct views *v, uint64_t job, uint64_t epoch, char ***names,
                         size_t *count, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v,
                    "SELECT n.name FROM attempt_node a JOIN node n ON n.id = a.node_id"
                    " WHERE a.job_id = ?1 AND a.epoch = ?2 ORDER BY a.node_rank",
                    &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job);
    sqlite3_bind_int64(stmt, 2, (int64_t)epoch);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        views_push(names, count, views_text(stmt, 0));
    }
}

/* The nodes it is on, or was on when it ended. */
static int add_nodes(struct views *v, Ds__Job *job, struct err *err)
{
    bool waits = strcmp(job->state, "PENDING") == 0 || strcmp(job->state, "HELD") == 0;
    return job->epoch == 0 || waits
               ? 0
               : attempt_nodes(v, job->id, job->epoch, &job->nodes, &job->n_nodes, err);
}

static void add_usage(const struct views *v, Ds__Job *job, const struct usage_open *open,
                      size_t count)
{
    struct usage sum = usage_of_job(v, job->id, open, count);
    Ds__JobUsage *u = mem_alloc(sizeof *u);
    ds__job_usage__init(u);
    job->usage = u;
    u->gpu_ms = (uint64_t)sum.gpu_ms;
    u->productive_gpu_ms = (uint64_t)sum.productive_ms;
    u->cost_micro_usd = sum.cost_micro_usd;
}

/* ------------------------------------------------------------------ list */

#define LIST_FILTER                                                                                \
    "id < ?4 AND (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR user = ?2)"                         \
    " AND (?3 IS NULL OR queue = ?3)"

/* In the order of the index of live jobs, whose condition SQLite wants to see as it is written
 * there. Left to itself it goes through the rows backwards, by those of a million ended jobs. */
#define LIVE(STATE)                                                                                \
    "SELECT id FROM job WHERE state = '" STATE "' AND state NOT IN"                                \
    " ('COMPLETED','FAILED','CANCELLED') AND " LIST_FILTER

#define OR " UNION ALL "
#define LIVE_JOBS                                                                                  \
    LIVE("PENDING")                                                                                \
    OR LIVE("STARTING") OR LIVE("RUNNING") OR LIVE("SUSPENDED") OR LIVE("STOPPING")                \
        OR LIVE("HELD") " ORDER BY 1 DESC LIMIT ?5"

static int query_list(struct views *v, const Ds__JobListRequest *r, size_t limit,
                      sqlite3_stmt **stmt, struct err *err)
{
    bool ended =
        r->state != NULL && (strcmp(r->state, "COMPLETED") == 0 ||
                             strcmp(r->state, "FAILED") == 0 || strcmp(r->state, "CANCELLED") == 0);
    if ((r->has_all && r->all) || ended) {
        TRY(views_query(v,
                        JOB_COLUMNS "WHERE j.id IN (SELECT id FROM job WHERE " LIST_FILTER
                                    " ORDER BY id DESC LIMIT ?5) ORDER BY j.id DESC",
                        stmt, err));
    } else {
        TRY(views_query(v, JOB_COLUMNS "WHERE j.id IN (" LIVE_JOBS ") ORDER BY j.id DESC", stmt,
                        err));
    }
    sqlite3_bind_text(*stmt, 1, r->state, -1, SQLITE_STATIC);
    sqlite3_bind_text(*stmt, 2, r->user, -1, SQLITE_STATIC);
    sqlite3_bind_text(*stmt, 3, r->queue, -1, SQLITE_STATIC);
    sqlite3_bind_int64(*stmt, 4, r->has_before ? (int64_t)r->before : INT64_MAX);
    sqlite3_bind_int64(*stmt, 5, (int64_t)limit + 1); /* one more tells that there is more */
    return 0;
}

static int fill_list(struct views *v, const Ds__JobListRequest *request, int64_t now_ms,
                     Ds__JobList *list, struct err *err)
{
    size_t limit = request->has_limit && request->limit > 0 ? request->limit : LIST_LIMIT;
    size_t bytes = 0;
    struct usage_open *open = NULL;
    size_t open_count = 0;
    sqlite3_stmt *stmt;
    int rc = usage_catch_up(v, err);
    if (rc == 0) {
        rc = usage_open_meters(v, now_ms, &open, &open_count, err);
    }
    if (rc == 0) {
        rc = query_list(v, request, limit, &stmt, err);
    }
    while (rc == 0) {
        bool row;
        TRY_GOTO(views_step(v, stmt, &row, err), done);
        if (!row) {
            break;
        }
        if (list->n_items >= limit || bytes >= VIEWS_BYTES_MAX) {
            list->has_truncated = list->truncated = 1;
            break;
        }
        Ds__Job *job = read_job(v, stmt);
        views_push(&list->items, &list->n_items, job);
        add_usage(v, job, open, open_count);
        TRY_GOTO(add_nodes(v, job, err), done);
        bytes += ds__job__get_packed_size(job);
    }
done:
    free(open);
    return rc;
}

static int check_state(const char *state, struct err *err)
{
    static const char *const states[] = {"PENDING", "STARTING",  "RUNNING", "SUSPENDED", "STOPPING",
                                         "HELD",    "COMPLETED", "FAILED",  "CANCELLED"};
    for (size_t i = 0; state != NULL && i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(states[i], state) == 0) {
            return 0;
        }
    }
    return state == NULL
               ? 0
               : err_set(
                     err, ERR_INVALID,
                     "'%.40s' is not a job state (allowed: PENDING, STARTING, RUNNING, SUSPENDED, "
                     "STOPPING, HELD, COMPLETED, FAILED, CANCELLED)",
                     state);
}

int views_job_list(struct views *v, const Ds__JobListRequest *request, int64_t now_ms,
                   Ds__JobList **out, struct err *err)
{
    TRY(check_state(request->state, err));
    Ds__JobList *list = mem_alloc(sizeof *list);
    ds__job_list__init(list);
    int rc = views_begin(v, err);
    if (rc == 0) {
        rc = fill_list(v, request, now_ms, list, err);
        views_end(v);
    }
    if (rc != 0) {
        ds__job_list__free_unpacked(list, NULL);
        return rc;
    }
    *out = list;
    return 0;
}

/* ------------------------------------------------------------------ one job */

static int add_attempts(struct views *v, Ds__Job *job, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(
        v,
        "SELECT epoch, state, started_ms, ended_ms, cause, first_step, last_step, "
        "lost_steps, detect_ms,"
        " restart_ms, resume_ckpt_id, resume_step, crossings, guard, guard_text, guard_back_to"
        " FROM attempt WHERE job_id = ?1 ORDER BY epoch DESC",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job->id);
    size_t bytes = 0;
    while (job->n_attempts < PART_ITEMS_MAX && bytes < PART_BYTES_MAX) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            break;
        }
        Ds__Attempt *a = mem_alloc(sizeof *a);
        ds__attempt__init(a);
        views_push(&job->attempts, &job->n_attempts, a);
        a->attempt = a->epoch = views_u64(stmt, 0);
        a->state = views_text(stmt, 1);
        a->started_at = views_i64(stmt, 2);
        a->has_ended_at = views_has(stmt, 3);
        a->ended_at = views_i64(stmt, 3);
        a->cause = views_text(stmt, 4);
        a->has_first_step = views_has(stmt, 5);
        a->first_step = views_u64(stmt, 5);
        a->has_last_step = views_has(stmt, 6);
        a->last_step = views_u64(stmt, 6);
        a->has_lost_steps = views_has(stmt, 7);
        a->lost_steps = views_u64(stmt, 7);
        a->has_detect_ms = views_has(stmt, 8);
        a->detect_ms = views_u64(stmt, 8);
        a->has_restart_ms = views_has(stmt, 9);
        a->restart_ms = views_u64(stmt, 9);
        a->has_resume_ckpt = views_has(stmt, 10);
        a->resume_ckpt = views_u64(stmt, 10);
        a->has_resume_step = views_has(stmt, 11);
        a->resume_step = views_u64(stmt, 11);
        a->has_crossings = 1;
        a->crossings = (uint32_t)views_u64(stmt, 12);
        a->guard = views_text(stmt, 13);
        a->guard_text = views_text(stmt, 14);
        a->has_guard_back_to = views_has(stmt, 15);
        a->guard_back_to = views_u64(stmt, 15);
        TRY(attempt_nodes(v, job->id, a->epoch, &a->nodes, &a->n_nodes, err));
        bytes += ds__attempt__get_packed_size(a);
    }
    views_reverse(job->attempts, job->n_attempts);
    return 0;
}

static int add_checkpoints(struct views *v, Ds__Job *job, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(
        v,
        "SELECT " VIEWS_CKPT_COLUMNS
        " FROM checkpoint WHERE job_id = ?1 AND state <> 'WRITING' ORDER BY id DESC LIMIT 1000",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job->id);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            break;
        }
        views_push(&job->checkpoints, &job->n_checkpoints, views_ckpt_row(stmt));
    }
    views_reverse(job->checkpoints, job->n_checkpoints);
    return 0;
}

static int add_events(struct views *v, Ds__Job *job, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(
        v, "SELECT " VIEWS_EVENT_COLUMNS " WHERE e.job_id = ?1 ORDER BY e.seq DESC LIMIT 1000",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job->id);
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            break;
        }
        views_push(&job->events, &job->n_events, views_event_row(stmt));
    }
    views_reverse(job->events, job->n_events);
    return 0;
}

static int add_spec(struct views *v, Ds__Job *job, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, "SELECT spec, workdir FROM job WHERE id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)job->id);
    bool row;
    TRY(views_step(v, stmt, &row, err));
    if (row) {
        job->spec = views_text(stmt, 0);
        job->workdir = views_text(stmt, 1);
        sqlite3_reset(stmt);
    }
    return 0;
}

int views_no_job(uint64_t id, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "there is no job %llu", (unsigned long long)id);
}

static int fill_job(struct views *v, uint64_t id, bool whole, int64_t now_ms, Ds__Job **out,
                    struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(usage_catch_up(v, err));
    TRY(views_query(v, JOB_COLUMNS "WHERE j.id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    bool row;
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return views_no_job(id, err);
    }
    Ds__Job *job = *out = read_job(v, stmt);
    struct usage_open *open;
    size_t count;
    TRY(usage_open_meters(v, now_ms, &open, &count, err));
    add_usage(v, job, open, count);
    free(open);
    TRY(add_nodes(v, job, err));
    if (whole) {
        TRY(add_attempts(v, job, err));
        TRY(add_checkpoints(v, job, err));
        TRY(add_events(v, job, err));
        TRY(add_spec(v, job, err));
    }
    return 0;
}

int views_job(struct views *v, uint64_t id, bool whole, int64_t now_ms, Ds__Job **out,
              struct err *err)
{
    *out = NULL;
    TRY(views_begin(v, err));
    int rc = fill_job(v, id, whole, now_ms, out, err);
    views_end(v);
    if (rc != 0 && *out != NULL) {
        ds__job__free_unpacked(*out, NULL);
        *out = NULL;
    }
    return rc;
}

int views_job_ended(struct views *v, uint64_t id, bool *ended, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, "SELECT state IN ('COMPLETED','FAILED','CANCELLED') FROM job WHERE id = ?1",
                    &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    bool row;
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return views_no_job(id, err);
    }
    *ended = views_i64(stmt, 0) != 0;
    sqlite3_reset(stmt);
    return 0;
}

int views_job_reason(struct views *v, uint64_t id, Ds__Reason **out, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, JOB_COLUMNS "WHERE j.id = ?1", &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)id);
    bool row;
    TRY(views_step(v, stmt, &row, err));
    if (!row) {
        return views_no_job(id, err);
    }
    Ds__Job *job = read_job(v, stmt);
    sqlite3_reset(stmt);
    if (job->reason == NULL) {
        char text[96];
        snprintf(text, sizeof text, "it does not wait: it is %s", job->state);
        fill_reason(job, "NONE", text);
    }
    *out = job->reason;
    job->reason = NULL;
    ds__job__free_unpacked(job, NULL);
    return 0;
}
