/* What the views_*.c share: statements, columns, growing messages. */
#ifndef DAEMON_VIEWS_DB_H
#define DAEMON_VIEWS_DB_H

#include <sqlite3.h>

#include "daemon/views.h"

/* The largest answer a view builds, under the frame's 4 MiB. */
#define VIEWS_BYTES_MAX (3500u * 1024u)

/* What a job used, in closed intervals. */
struct usage {
    int64_t gpu_ms, productive_ms, cost_micro_usd;
    int64_t lost_ms; /* of the productive ones: given up since */
};
/* Sums of the ledger by job. The ledger only grows, so each row is read once. */
struct usage_sums {
    int64_t seq;        /* of the last row that is in */
    int64_t lost_rowid; /* the same, of lost_work */
    struct usage *jobs; /* owned; by job id */
    size_t capacity;
};

struct views {
    sqlite3 *db; /* owned */
    struct views_live live;
    struct {
        const char *sql; /* borrowed, a literal: found by address */
        sqlite3_stmt *stmt;
    } statements[64];
    size_t statement_count;
    struct usage_sums usage;
};

/* A reset statement without bindings. sql is a literal. */
int views_query(struct views *v, const char *sql, sqlite3_stmt **stmt, struct err *err);
/* The next row: *row says whether there was one. Without one the statement is reset. */
int views_step(struct views *v, sqlite3_stmt *stmt, bool *row, struct err *err);
/* One snapshot over several statements. */
int views_begin(struct views *v, struct err *err);
void views_end(struct views *v);

/* Heap copy; NULL for NULL. */
char *views_text(sqlite3_stmt *stmt, int column);
/* *has and *value of an optional field; false for NULL. */
bool views_has(sqlite3_stmt *stmt, int column);
uint64_t views_u64(sqlite3_stmt *stmt, int column);
int64_t views_i64(sqlite3_stmt *stmt, int column);
double views_double(sqlite3_stmt *stmt, int column);

/* Appends to a repeated field of messages or strings: items is the address of the array. */
void views_push(void *items, size_t *count, void *item);
/* Turns a repeated field around. */
void views_reverse(void *items, size_t count);

/* usage.c */
int usage_catch_up(struct views *v, struct err *err);
/* Closed and running intervals of a job up to now_ms. Within views_begin. */
struct usage_open {
    uint64_t job;
    struct usage sum;
};
/* The running meters by job; *open is freed by the caller. */
int usage_open_meters(struct views *v, int64_t now_ms, struct usage_open **open, size_t *count,
                      struct err *err);
struct usage usage_of_job(const struct views *v, uint64_t job, const struct usage_open *open,
                          size_t count);
void usage_fini(struct usage_sums *sums);

/* views_lost.c */
struct lost_span {
    uint64_t job;
    int64_t from_ms, to_ms;
};
struct lost_spans {
    struct lost_span *items; /* owned; by job, time; those of one job neither overlap nor touch */
    size_t count;
};
int lost_read(struct views *v, struct lost_spans *spans, struct err *err);
void lost_fini(struct lost_spans *spans); /* a zeroed one is fine */
const struct lost_span *lost_first(const struct lost_spans *spans, uint64_t job); /* or NULL */
const struct lost_span *lost_next(const struct lost_spans *spans, const struct lost_span *span);
/* Of what is booked as productive for the job. */
int lost_of_job(struct views *v, const struct lost_spans *spans, uint64_t job, int64_t *ms,
                struct err *err);

/* Shared rows. */
Ds__Ckpt *views_ckpt_row(sqlite3_stmt *stmt);
/* ERR_NOT_FOUND. */
int views_no_job(uint64_t id, struct err *err);
#define VIEWS_CKPT_COLUMNS                                                                         \
    "id, job_id, step, epoch, state, bytes, world_size, sha256, committed_ms, pinned, path, "      \
    "reason, given_up"
Ds__Event *views_event_row(sqlite3_stmt *stmt);
#define VIEWS_EVENT_COLUMNS                                                                        \
    "e.seq, e.at_ms, e.kind, e.job_id, e.epoch, n.name, e.text FROM event e LEFT JOIN node n ON "  \
    "n.id = e.node_id"

#endif
