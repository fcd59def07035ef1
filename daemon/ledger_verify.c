/* Two measurements are compared. The ledger's own: rows chained by hash, tiling each accelerator's
 * time, with costs that follow from the prices. And the allocations, which know nothing of
 * categories: between the start of the attempt and the release of the accelerator every millisecond
 * must be booked on that attempt, and nothing else may be. */
#include "daemon/ledger_verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/ledger.h"
#include "daemon/store_internal.h"
#include "lib/buf.h"
#include "lib/hash.h"
#include "lib/mem.h"

struct audit {
    sqlite3 *db; /* borrowed */
    struct ledger_verdict *verdict;
    int64_t now_ms;
    struct price_row *prices; /* owned; by id, from 1 */
    size_t price_count, price_capacity;
    struct gpu_row *gpus; /* owned; by id, from 1 */
    int64_t *next_ms;     /* owned; where the next interval of each must begin */
    size_t gpu_count, gpu_capacity;
    uint8_t head[ROW_HASH_BYTES];
};

static void complain(struct audit *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct audit *a, const char *fmt, ...)
{
    a->verdict->ok = false;
    if (a->verdict->problem_count < LEDGER_PROBLEMS_MAX) {
        char text[512];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        a->verdict->problems[a->verdict->problem_count++] = mem_strdup(text);
    }
}

static int fail(struct audit *a, struct err *err)
{
    return err_set(err, ERR_IO, "ledger: %s", sqlite3_errmsg(a->db));
}

/* Reads a whole table, ordered by its key, row by row. */
static int for_each_row(struct audit *a, enum table_id id,
                        void (*visit)(struct audit *a, void *row), struct err *err)
{
    const struct table *table = &tables[id];
    struct buf sql = {0};
    buf_append_str(&sql, "SELECT ");
    row_column_list(&sql, table, "");
    buf_printf(&sql, " FROM %s ORDER BY %s", table->name, table->columns[0].name);
    sqlite3_stmt *stmt = NULL;
    int rc =
        sqlite3_prepare_v2(a->db, buf_cstr(&sql), -1, &stmt, NULL) == SQLITE_OK ? 0 : fail(a, err);
    buf_fini(&sql);
    void *row = mem_alloc(table->row_bytes);
    int step = SQLITE_DONE;
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct err row_err = {0};
        if (row_read(stmt, table, row, &row_err) != 0) {
            complain(a, "%s", row_err.text);
            continue;
        }
        visit(a, row);
    }
    if (rc == 0 && step != SQLITE_DONE) {
        rc = fail(a, err);
    }
    sqlite3_finalize(stmt);
    free(row);
    return rc;
}

static void take_price(struct audit *a, void *object)
{
    struct price_row *row = object;
    void *prices = a->prices;
    mem_grow(&prices, &a->price_capacity, a->price_count + 1, sizeof *a->prices);
    a->prices = prices;
    if (row->id != a->price_count + 1) {
        complain(a, "price %" PRIu64 " is missing", (uint64_t)a->price_count + 1);
    }
    a->prices[a->price_count++] = *row;
}

static void take_gpu(struct audit *a, void *object)
{
    struct gpu_row *row = object;
    void *gpus = a->gpus;
    mem_grow(&gpus, &a->gpu_capacity, a->gpu_count + 1, sizeof *a->gpus);
    a->gpus = gpus;
    if (row->id != a->gpu_count + 1) {
        complain(a, "accelerator %" PRIu64 " is missing", (uint64_t)a->gpu_count + 1);
    }
    a->gpus[a->gpu_count++] = *row;
}

static void count(struct audit *a, enum category category, int64_t ms)
{
    struct ledger_verdict *v = a->verdict;
    switch (category) {
    case CATEGORY_IDLE:
        v->idle_ms += ms;
        break;
    case CATEGORY_DOWN:
        v->down_ms += ms;
        break;
    case CATEGORY_PLANNED_DOWN:
        v->planned_down_ms += ms;
        break;
    default:
        v->allocated_ms += ms;
    }
}

static bool is_unallocated(enum category category)
{
    return category == CATEGORY_IDLE || category == CATEGORY_DOWN ||
           category == CATEGORY_PLANNED_DOWN;
}

static void check_price(struct audit *a, const struct ledger_row *row)
{
    if (row->price_id == 0 || row->price_id > a->price_count) {
        complain(a, "row %" PRIu64 " has price %" PRIu64 ", which is not there", row->seq,
                 row->price_id);
        return;
    }
    const struct price_row *price = &a->prices[row->price_id - 1];
    if (price->effective_ms > row->start_ms) {
        complain(a, "row %" PRIu64 " begins before its price %" PRIu64 " is valid", row->seq,
                 row->price_id);
    }
    int64_t cost = ledger_cost(row->end_ms - row->start_ms, price->micro_usd_per_gpu_hour);
    if (cost != row->cost_micro_usd) {
        complain(
            a, "row %" PRIu64 " costs %" PRId64 " micro-dollars, its time and price make %" PRId64,
            row->seq, row->cost_micro_usd, cost);
    }
}

static void check_row(struct audit *a, void *object)
{
    struct ledger_row *row = object;
    uint64_t seq = ++a->verdict->rows;
    if (row->seq != seq) {
        complain(a, "row %" PRIu64 " is missing", seq);
        a->verdict->rows = row->seq; /* one gap, one sentence */
    }
    uint8_t hash[ROW_HASH_BYTES];
    ledger_row_hash(row, a->head, hash);
    if (memcmp(hash, row->hash, sizeof hash) != 0) {
        complain(a, "row %" PRIu64 " or the one before was altered: its hash does not follow",
                 row->seq);
    }
    memcpy(a->head, row->hash, sizeof a->head);
    if (row->end_ms <= row->start_ms) {
        complain(a, "row %" PRIu64 " ends before it begins", row->seq);
        return;
    }
    if (is_unallocated(row->category) != (row->job_id == 0)) {
        complain(a, "row %" PRIu64 " is %s and names %s job", row->seq,
                 category_names[row->category], row->job_id == 0 ? "no" : "a");
    }
    check_price(a, row);
    count(a, row->category, row->end_ms - row->start_ms);
    if (row->gpu_id == 0 || row->gpu_id > a->gpu_count) {
        complain(a, "row %" PRIu64 " is of accelerator %" PRIu64 ", which is not there", row->seq,
                 row->gpu_id);
        return;
    }
    int64_t *next_ms = &a->next_ms[row->gpu_id - 1];
    if (row->start_ms != *next_ms) {
        complain(a, "accelerator %" PRIu64 ": row %" PRIu64 " %s of %" PRId64 " ms", row->gpu_id,
                 row->seq,
                 row->start_ms > *next_ms ? "follows a gap"
                                          : "overlaps the one before by a stretch",
                 row->start_ms > *next_ms ? row->start_ms - *next_ms : *next_ms - row->start_ms);
    }
    *next_ms = row->end_ms;
}

static void check_meters(struct audit *a)
{
    for (size_t i = 0; i < a->gpu_count; i++) {
        const struct gpu_row *gpu = &a->gpus[i];
        if (a->next_ms[i] != gpu->since_ms) {
            complain(a,
                     "accelerator %" PRIu64 ": the ledger ends at %" PRId64
                     ", the open meter begins at %" PRId64,
                     gpu->id, a->next_ms[i], gpu->since_ms);
        }
        count(a, gpu->category, a->now_ms - gpu->since_ms);
        a->verdict->reported_ms += a->now_ms - gpu->first_seen_ms;
    }
    const struct ledger_verdict *v = a->verdict;
    int64_t sum = v->allocated_ms + v->down_ms + v->planned_down_ms + v->idle_ms;
    if (sum != v->reported_ms) {
        complain(a,
                 "allocated + down + planned_down + idle = %" PRId64
                 " ms, but the accelerators were there for %" PRId64 " ms",
                 sum, v->reported_ms);
    }
}

/* job, epoch, accelerator, booked ms, allocated ms: where the two differ. A spare is held without
 * an allocation. */
static const char compare_sql[] =
    "WITH booked AS (SELECT job_id, epoch, gpu_id, sum(ms) AS ms FROM ("
    "  SELECT job_id, epoch, gpu_id, end_ms - start_ms AS ms FROM ledger WHERE job_id IS NOT NULL"
    "  AND category <> 'held'"
    "  UNION ALL SELECT job_id, epoch, id, ?1 - since_ms FROM gpu WHERE job_id IS NOT NULL AND "
    "category <> 'held')"
    "  GROUP BY job_id, epoch, gpu_id),"
    "held AS (SELECT a.job_id, a.epoch, a.gpu_id, coalesce(a.released_ms, ?1) - t.started_ms AS ms"
    "  FROM allocation a JOIN attempt t ON t.job_id = a.job_id AND t.epoch = a.epoch) "
    "SELECT h.job_id, h.epoch, h.gpu_id, coalesce(b.ms, 0), h.ms FROM held h"
    "  LEFT JOIN booked b ON b.job_id = h.job_id AND b.epoch = h.epoch AND b.gpu_id = h.gpu_id"
    "  WHERE coalesce(b.ms, 0) <> h.ms "
    "UNION ALL SELECT b.job_id, b.epoch, b.gpu_id, b.ms, 0 FROM booked b"
    "  WHERE NOT EXISTS (SELECT 1 FROM allocation a WHERE a.job_id = b.job_id AND a.epoch = b.epoch"
    "    AND a.gpu_id = b.gpu_id)";

static int check_allocations(struct audit *a, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(a->db, compare_sql, -1, &stmt, NULL) != SQLITE_OK) {
        return fail(a, err);
    }
    sqlite3_bind_int64(stmt, 1, a->now_ms);
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        complain(a,
                 "job %lld, attempt %lld: accelerator %lld was allocated for %lld ms, %lld ms are "
                 "booked",
                 (long long)sqlite3_column_int64(stmt, 0), (long long)sqlite3_column_int64(stmt, 1),
                 (long long)sqlite3_column_int64(stmt, 2), (long long)sqlite3_column_int64(stmt, 4),
                 (long long)sqlite3_column_int64(stmt, 3));
    }
    sqlite3_finalize(stmt);
    return step == SQLITE_DONE ? 0 : fail(a, err);
}

/* The last commit may be younger than the caller's clock. */
static int read_clock(struct audit *a, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(a->db, "SELECT value FROM meta WHERE key = 'clock_ms'", -1, &stmt,
                           NULL) != SQLITE_OK) {
        return fail(a, err);
    }
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW && sqlite3_column_int64(stmt, 0) > a->now_ms) {
        a->now_ms = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return step == SQLITE_ROW || step == SQLITE_DONE ? 0 : fail(a, err);
}

static int audit(struct audit *a, struct err *err)
{
    TRY(read_clock(a, err));
    TRY(for_each_row(a, TABLE_PRICE, take_price, err));
    TRY(for_each_row(a, TABLE_GPU, take_gpu, err));
    a->next_ms = mem_alloc_array(a->gpu_count, sizeof *a->next_ms);
    for (size_t i = 0; i < a->gpu_count; i++) {
        a->next_ms[i] = a->gpus[i].first_seen_ms;
    }
    TRY(for_each_row(a, TABLE_LEDGER, check_row, err));
    check_meters(a);
    hash_hex(a->head, sizeof a->head, a->verdict->head);
    return check_allocations(a, err);
}

int ledger_verify(sqlite3 *db, int64_t now_ms, struct ledger_verdict *verdict, struct err *err)
{
    *verdict = (struct ledger_verdict){.ok = true};
    struct audit a = {.db = db, .verdict = verdict, .now_ms = now_ms};
    if (sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) {
        return fail(&a, err);
    }
    int rc = audit(&a, err);
    sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    for (size_t i = 0; i < a.price_count; i++) {
        row_fini(&tables[TABLE_PRICE], &a.prices[i]);
    }
    for (size_t i = 0; i < a.gpu_count; i++) {
        row_fini(&tables[TABLE_GPU], &a.gpus[i]);
    }
    free(a.prices);
    free(a.gpus);
    free(a.next_ms);
    if (rc != 0) {
        ledger_verdict_fini(verdict);
    }
    return rc;
}

void ledger_verdict_fini(struct ledger_verdict *verdict)
{
    for (size_t i = 0; i < verdict->problem_count; i++) {
        free(verdict->problems[i]);
    }
    *verdict = (struct ledger_verdict){0};
}
