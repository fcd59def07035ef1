#include "daemon/sim/store_mem.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/load.h"
#include "daemon/store_internal.h"
#include "lib/buf.h"
#include "lib/hash.h"
#include "lib/mem.h"

#include "daemon/schema.sql.h"

/* Rows of one table, found by their key through an open hash of positions. */
struct mem_table {
    void **rows; /* owned; copies */
    size_t count, capacity;
    size_t *slots; /* owned; position + 1; 0: free */
    size_t slot_count;
};
struct store_mem {
    struct mem_table tables[TABLE_COUNT];
    int64_t clock_ms;
    uint64_t term;
};

/* ---- rows */
static const void *field_of(const struct column *column, const void *row)
{
    return (const char *)row + column->offset;
}

static void copy_row(const struct table *table, void *to, const void *from)
{
    memcpy(to, from, table->row_bytes);
    *(bool *)to = false;
    for (size_t i = 0; i < table->column_count; i++) {
        if (table->columns[i].kind == COLUMN_TEXT) {
            char **text = (char **)((char *)to + table->columns[i].offset);
            *text = mem_strdup(*text);
        }
    }
}

static int compare_column(const struct column *column, const void *a, const void *b)
{
    if (column->kind == COLUMN_TEXT) {
        const char *x = *(char *const *)field_of(column, a),
                   *y = *(char *const *)field_of(column, b);
        return strcmp(x != NULL ? x : "", y != NULL ? y : "");
    }
    int64_t x, y;
    memcpy(&x, field_of(column, a), sizeof x);
    memcpy(&y, field_of(column, b), sizeof y);
    return x < y ? -1 : x > y;
}

static int compare_keys(const struct table *table, const void *a, const void *b)
{
    int order = 0;
    for (size_t i = 0; i < table->key_count && order == 0; i++) {
        order = compare_column(&table->columns[i], a, b);
    }
    return order;
}

static uint64_t hash_key(const struct table *table, const void *row)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < table->key_count; i++) {
        const struct column *column = &table->columns[i];
        if (column->kind == COLUMN_TEXT) {
            const char *text = *(char *const *)field_of(column, row);
            hash = hash_xxh3(text != NULL ? text : "", text != NULL ? strlen(text) : 0, hash);
        } else {
            hash = hash_xxh3(field_of(column, row), sizeof(int64_t), hash);
        }
    }
    return hash;
}

/* ---- tables */
static size_t *slot_of(struct mem_table *t, const struct table *table, const void *row)
{
    size_t at = (size_t)hash_key(table, row) & (t->slot_count - 1);
    while (t->slots[at] != 0 && compare_keys(table, t->rows[t->slots[at] - 1], row) != 0) {
        at = (at + 1) & (t->slot_count - 1);
    }
    return &t->slots[at];
}

static void make_room(struct mem_table *t, const struct table *table)
{
    if ((t->count + 1) * 2 < t->slot_count) {
        return;
    }
    free(t->slots);
    t->slot_count = t->slot_count == 0 ? 64 : t->slot_count * 2;
    t->slots = mem_alloc_array(t->slot_count, sizeof *t->slots);
    for (size_t i = 0; i < t->count; i++) {
        *slot_of(t, table, t->rows[i]) = i + 1;
    }
}

static void put(struct store_mem *store, enum table_id id, const void *row)
{
    struct mem_table *t = &store->tables[id];
    const struct table *table = &tables[id];
    make_room(t, table);
    size_t *slot = slot_of(t, table, row);
    if (*slot == 0) {
        void *rows = t->rows;
        mem_grow(&rows, &t->capacity, t->count + 1, sizeof *t->rows);
        t->rows = rows;
        t->rows[t->count++] = mem_alloc(table->row_bytes);
        *slot = t->count;
    } else {
        row_fini(table, t->rows[*slot - 1]);
    }
    copy_row(table, t->rows[*slot - 1], row);
}

static const void *get(struct store_mem *store, enum table_id id, const void *key)
{
    struct mem_table *t = &store->tables[id];
    if (t->count == 0) {
        return NULL;
    }
    size_t at = *slot_of(t, &tables[id], key);
    return at != 0 ? t->rows[at - 1] : NULL;
}

struct store_mem *store_mem_create(void)
{
    return mem_alloc(sizeof(struct store_mem));
}

void store_mem_destroy(struct store_mem *store)
{
    for (int id = 0; store != NULL && id < TABLE_COUNT; id++) {
        struct mem_table *t = &store->tables[id];
        for (size_t i = 0; i < t->count; i++) {
            row_fini(&tables[id], t->rows[i]);
            free(t->rows[i]);
        }
        free(t->rows);
        free(t->slots);
    }
    free(store);
}

void store_mem_set_price(struct store_mem *store, const char *model, int64_t effective_ms,
                         int64_t micro_usd_per_gpu_hour)
{
    struct mem_table *t = &store->tables[TABLE_PRICE];
    for (size_t i = 0; i < t->count; i++) {
        const struct price_row *row = t->rows[i];
        if (strcmp(row->model, model) == 0 && row->effective_ms == effective_ms) {
            return;
        }
    }
    char *name = mem_strdup(model);
    struct price_row row = {.id = t->count + 1,
                            .model = name,
                            .effective_ms = effective_ms,
                            .micro_usd_per_gpu_hour = micro_usd_per_gpu_hour};
    put(store, TABLE_PRICE, &row);
    free(name);
}

int store_mem_commit(struct store_mem *store, struct core *core, int64_t now_ms, struct err *err)
{
    (void)err;
    for (int id = 0; id < TABLE_COUNT; id++) {
        const struct change_list *list = core_changes(core, (enum table_id)id);
        for (size_t i = 0; i < change_count(list); i++) {
            put(store, (enum table_id)id, change_row(list, i));
        }
    }
    store->clock_ms = now_ms;
    return 0;
}

/* ---- loading: what of each table lives in the core; store_load.c says the same in SQL */
static bool is_newest_attempt(struct store_mem *store, uint64_t job_id, uint64_t epoch)
{
    struct job_row key = {.id = job_id};
    const struct job_row *job = get(store, TABLE_JOB, &key);
    return job != NULL && (uint64_t)job->epoch == epoch && job->state != JOB_COMPLETED &&
           job->state != JOB_FAILED && job->state != JOB_CANCELLED;
}

static bool is_live(struct store_mem *store, enum table_id id, const void *row)
{
    switch (id) {
    case TABLE_JOB: {
        const struct job_row *job = row;
        return is_newest_attempt(store, job->id, (uint64_t)job->epoch);
    }
    case TABLE_ATTEMPT:
    case TABLE_ATTEMPT_NODE:
    case TABLE_ALLOCATION:
    case TABLE_RANK_EXIT: {
        uint64_t job, epoch; /* the first two columns of each */
        memcpy(&job, field_of(&tables[id].columns[0], row), sizeof job);
        memcpy(&epoch, field_of(&tables[id].columns[1], row), sizeof epoch);
        return is_newest_attempt(store, job, epoch);
    }
    case TABLE_CHECKPOINT: {
        const struct checkpoint_row *ckpt = row;
        return ckpt->state != CKPT_DELETED || ckpt->removing ||
               is_newest_attempt(store, ckpt->job_id, ckpt->epoch);
    }
    case TABLE_CKPT_SHARD: {
        struct checkpoint_row key = {.id = ((const struct ckpt_shard_row *)row)->ckpt_id};
        const struct checkpoint_row *ckpt = get(store, TABLE_CHECKPOINT, &key);
        return ckpt != NULL && (ckpt->state == CKPT_WRITING || ckpt->state == CKPT_COMMITTED);
    }
    case TABLE_LEDGER:
    case TABLE_LOST_WORK:
    case TABLE_METRIC:
    case TABLE_EVENT:
        return false;
    default:
        return true;
    }
}

static int compare_rows(const void *a, const void *b, void *table)
{
    return compare_keys(table, *(void *const *)a, *(void *const *)b);
}

static int load_table(struct store_mem *store, struct core *core, enum table_id id, struct err *err)
{
    const struct mem_table *t = &store->tables[id];
    const void **live = mem_alloc_array(t->count + 1, sizeof *live);
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (is_live(store, id, t->rows[i])) {
            live[count++] = t->rows[i];
        }
    }
    qsort_r(live, count, sizeof *live, compare_rows, (void *)(uintptr_t)&tables[id]);
    void *row = mem_alloc(tables[id].row_bytes);
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        copy_row(&tables[id], row, live[i]);
        rc = core_load_row(core, id, row, err);
    }
    free(row);
    free(live);
    return rc;
}

static void load_counters(struct store_mem *store, struct core_counters *c)
{
    const struct mem_table *ledger = &store->tables[TABLE_LEDGER];
    c->now_ms = store->clock_ms;
    c->term = store->term;
    c->next_job = c->next_ckpt = 1;
    for (size_t i = 0; i < store->tables[TABLE_JOB].count; i++) {
        uint64_t id = ((const struct job_row *)store->tables[TABLE_JOB].rows[i])->id;
        c->next_job = id >= c->next_job ? id + 1 : c->next_job;
    }
    for (size_t i = 0; i < store->tables[TABLE_CHECKPOINT].count; i++) {
        uint64_t id = ((const struct checkpoint_row *)store->tables[TABLE_CHECKPOINT].rows[i])->id;
        c->next_ckpt = id >= c->next_ckpt ? id + 1 : c->next_ckpt;
    }
    c->event_seq = store->tables[TABLE_EVENT].count; /* appended in order, without a gap */
    c->ledger_seq = ledger->count;
    if (ledger->count > 0) {
        const struct ledger_row *last = ledger->rows[ledger->count - 1];
        memcpy(c->ledger_head, last->hash, sizeof c->ledger_head);
    }
}

static int compare_ids(const void *a, const void *b)
{
    const struct job_row *x = *(void *const *)a, *y = *(void *const *)b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int load(struct store_mem *store, struct core *core, struct err *err)
{
    for (int id = 0; id < TABLE_COUNT; id++) {
        TRY(load_table(store, core, (enum table_id)id, err));
    }
    size_t count = store->tables[TABLE_JOB].count;
    void **jobs = mem_alloc_array(count + 1, sizeof *jobs);
    memcpy(jobs, store->tables[TABLE_JOB].rows, count * sizeof *jobs);
    qsort(jobs, count, sizeof *jobs, compare_ids);
    for (size_t i = 0; i < count; i++) {
        const struct job_row *job = jobs[i];
        if (job->state == JOB_COMPLETED || job->state == JOB_FAILED ||
            job->state == JOB_CANCELLED) {
            bool is_first = job->array_id == job->id;
            core_load_outcome(core, job->id, job->state, is_first ? (uint32_t)job->array_size : 0);
        }
        if (job->submit_key != NULL) {
            core_load_key(core, job->submit_key, job->request_hash, job->id);
        }
    }
    free(jobs);
    return 0;
}

int store_mem_load_readonly(struct store_mem *store, struct core *core, struct err *err)
{
    struct core_counters counters = {0};
    load_counters(store, &counters);
    TRY(load(store, core, err));
    core_load_counters(core, &counters);
    core_load_done(core);
    return 0;
}

int store_mem_load(struct store_mem *store, struct core *core, int64_t wall_ms, struct err *err)
{
    struct core_counters counters = {0};
    load_counters(store, &counters);
    TRY(load(store, core, err));
    counters.term = ++store->term;
    counters.now_ms = counters.now_ms > wall_ms ? counters.now_ms : wall_ms;
    core_load_counters(core, &counters);
    core_load_done(core);
    TRY(store_mem_commit(store, core, counters.now_ms, err));
    core_committed(core);
    return 0;
}

/* ---- as SQL */
static int dump_table(struct store_mem *store, enum table_id id, sqlite3 *db)
{
    const struct table *table = &tables[id];
    struct buf sql = {0};
    buf_printf(&sql, "INSERT INTO %s(", table->name);
    row_column_list(&sql, table, "");
    buf_append_str(&sql, ") VALUES(");
    for (size_t i = 0; i < table->column_count; i++) {
        buf_append_str(&sql, i > 0 ? ",?" : "?");
    }
    buf_append_str(&sql, ")");
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, buf_cstr(&sql), -1, &stmt, NULL);
    buf_fini(&sql);
    for (size_t i = 0; rc == SQLITE_OK && i < store->tables[id].count; i++) {
        rc = row_bind(stmt, table, store->tables[id].rows[i]);
        rc = rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
        sqlite3_reset(stmt);
    }
    sqlite3_finalize(stmt);
    return rc;
}

int store_mem_dump(struct store_mem *store, sqlite3 *db, struct err *err)
{
    int rc = sqlite3_exec(db, schema_sql, NULL, NULL, NULL);
    rc = rc == SQLITE_OK ? sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) : rc;
    for (int id = 0; id < TABLE_COUNT && rc == SQLITE_OK; id++) {
        rc = dump_table(store, (enum table_id)id, db);
    }
    rc = rc == SQLITE_OK ? sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) : rc;
    return rc == SQLITE_OK ? 0 : err_set(err, ERR_CORRUPT, "as SQL: %s", sqlite3_errmsg(db));
}
