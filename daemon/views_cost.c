/* The bill. One pass over the closed intervals of the ledger and the meters that still run, each
 * clipped to the window, gives milliseconds by category and cost for every group; groups are small
 * numbers (a job's id, an accelerator's id, a category, a month) until the end, when they get their
 * names and groups of one name are added up.
 *
 * The cost of a part [a,b) of an interval that began at s is cost(b - s) - cost(a - s), so that the
 * parts of an interval add up to the whole to the micro-dollar, however it is cut. Items cover
 * allocated time, and all time when grouped by category; their sum is the total. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/core/ledger.h"
#include "daemon/views_db.h"
#include "lib/mem.h"

enum grouping { BY_JOB, BY_USER, BY_ACCOUNT, BY_STAGE, BY_QUEUE, BY_NODE, BY_CATEGORY, BY_MONTH };
static const char *const groupings[] = {"job",   "user", "account",  "stage",
                                        "queue", "node", "category", "month"};
enum { GROUPINGS = sizeof groupings / sizeof groupings[0] };

struct cell {
    int64_t ms[CATEGORY_COUNT];
    int64_t cost;
    bool used;
};
struct report {
    enum grouping by;
    int64_t from_ms, to_ms;
    uint64_t job;        /* groups are of this job alone; 0: of all */
    struct cell *groups; /* owned */
    size_t capacity;
    struct cell all;
    int64_t reported_ms;
    struct lost_spans lost; /* owned */
};
struct interval {
    uint64_t gpu, job; /* job 0: none */
    int category;
    int64_t start_ms, end_ms, price;
    int64_t cost; /* of the whole; -1: not written yet */
};

static int category_of(const char *name)
{
    for (int i = 0; i < CATEGORY_COUNT; i++) {
        if (strcmp(category_names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* ------------------------------------------------------------------ months */

static size_t month_of(int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    return (size_t)(tm.tm_year - 70) * 12 + (size_t)tm.tm_mon;
}

static int64_t month_start(size_t month)
{
    struct tm tm = {.tm_year = (int)(month / 12) + 70, .tm_mon = (int)(month % 12), .tm_mday = 1};
    return (int64_t)timegm(&tm) * 1000;
}

/* ------------------------------------------------------------------ adding up */

static struct cell *group(struct report *r, size_t index)
{
    if (index >= r->capacity) {
        size_t old = r->capacity;
        void *groups = r->groups;
        mem_grow(&groups, &r->capacity, index + 1, sizeof r->groups[0]);
        r->groups = groups;
        memset(r->groups + old, 0, (r->capacity - old) * sizeof r->groups[0]);
    }
    return &r->groups[index];
}

static int64_t cost_of(const struct interval *i, int64_t a, int64_t b)
{
    if (i->cost >= 0 && a == i->start_ms && b == i->end_ms) {
        return i->cost;
    }
    return ledger_cost(b - i->start_ms, i->price) - ledger_cost(a - i->start_ms, i->price);
}

static void add_to(struct cell *cell, const struct interval *i, int64_t a, int64_t b)
{
    cell->used = true;
    cell->ms[i->category] += b - a;
    cell->cost += cost_of(i, a, b);
}

static void add_months(struct report *r, const struct interval *i, int64_t a, int64_t b)
{
    while (a < b) {
        size_t month = month_of(a);
        int64_t next = month_start(month + 1);
        int64_t end = next < b ? next : b;
        add_to(group(r, month), i, a, end);
        a = end;
    }
}

/* The part [a, b) of an interval, under that category. */
static void add_part(struct report *r, const struct interval *whole, int64_t a, int64_t b,
                     int category)
{
    struct interval part = *whole;
    const struct interval *i = &part;
    part.category = category;
    a = a > r->from_ms ? a : r->from_ms;
    b = b < r->to_ms ? b : r->to_ms;
    if (a >= b) {
        return;
    }
    add_to(&r->all, i, a, b);
    if (r->job != 0 && i->job != r->job) {
        return;
    }
    if (r->by == BY_CATEGORY) {
        add_to(group(r, (size_t)i->category), i, a, b);
    } else if (i->job == 0) {
        return;
    } else if (r->by == BY_MONTH) {
        add_months(r, i, a, b);
    } else {
        add_to(group(r, r->by == BY_NODE ? i->gpu : i->job), i, a, b);
    }
}

/* What was booked as productive and given up later is lost progress. */
static void add_split(struct report *r, const struct interval *i)
{
    struct interval rest = *i;
    const struct lost_span *s =
        i->category == CATEGORY_PRODUCTIVE ? lost_first(&r->lost, i->job) : NULL;
    for (; s != NULL; s = lost_next(&r->lost, s)) {
        int64_t a = s->from_ms > rest.start_ms ? s->from_ms : rest.start_ms;
        int64_t b = s->to_ms < rest.end_ms ? s->to_ms : rest.end_ms;
        if (a < b) {
            add_part(r, i, rest.start_ms, a, CATEGORY_PRODUCTIVE);
            add_part(r, i, a, b, CATEGORY_LOST_PROGRESS);
            rest.start_ms = b;
        }
    }
    add_part(r, i, rest.start_ms, rest.end_ms, i->category);
}

static int add_all(struct views *v, struct report *r, sqlite3_stmt *stmt, struct err *err)
{
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        struct interval i = {.gpu = views_u64(stmt, 0),
                             .job = views_u64(stmt, 1),
                             .category = category_of((const char *)sqlite3_column_text(stmt, 2)),
                             .start_ms = views_i64(stmt, 3),
                             .end_ms = views_i64(stmt, 4),
                             .price = views_i64(stmt, 5),
                             .cost = views_i64(stmt, 6)};
        if (i.category < 0) {
            return err_set(err, ERR_CORRUPT,
                           "the ledger has the unknown category '%.40s' (dsctl cost verify)",
                           (const char *)sqlite3_column_text(stmt, 2));
        }
        add_split(r, &i);
    }
}

static int read_intervals(struct views *v, struct report *r, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(lost_read(v, &r->lost, err));
    TRY(views_query(
        v,
        "SELECT l.gpu_id, l.job_id, l.category, l.start_ms, l.end_ms, p.micro_usd_per_gpu_hour,"
        " l.cost_micro_usd FROM ledger l JOIN price p ON p.id = l.price_id"
        " WHERE l.end_ms > ?1 AND l.start_ms < ?2",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, r->from_ms);
    sqlite3_bind_int64(stmt, 2, r->to_ms);
    TRY(add_all(v, r, stmt, err));
    TRY(views_query(
        v,
        "SELECT g.id, g.job_id, g.category, g.since_ms, ?1, p.micro_usd_per_gpu_hour, -1"
        " FROM gpu g JOIN price p ON p.id = g.price_id",
        &stmt, err));
    sqlite3_bind_int64(stmt, 1, r->to_ms);
    return add_all(v, r, stmt, err);
}

/* Not from the intervals: the time since each accelerator was first seen. */
static int measure_reported(struct views *v, struct report *r, struct err *err)
{
    sqlite3_stmt *stmt;
    TRY(views_query(v, "SELECT first_seen_ms FROM gpu", &stmt, err));
    for (;;) {
        bool row;
        TRY(views_step(v, stmt, &row, err));
        if (!row) {
            return 0;
        }
        int64_t first_ms = views_i64(stmt, 0);
        int64_t start_ms = first_ms > r->from_ms ? first_ms : r->from_ms;
        r->reported_ms += r->to_ms > start_ms ? r->to_ms - start_ms : 0;
    }
}

/* ------------------------------------------------------------------ names */

struct named {
    char *key; /* owned */
    size_t index;
    struct cell cell;
};

static int name_by(struct views *v, const char *sql, size_t index, char **key, struct err *err)
{
    sqlite3_stmt *stmt;
    bool row;
    TRY(views_query(v, sql, &stmt, err));
    sqlite3_bind_int64(stmt, 1, (int64_t)index);
    TRY(views_step(v, stmt, &row, err));
    *key = row ? views_text(stmt, 0) : mem_printf("%zu", index);
    sqlite3_reset(stmt);
    return 0;
}

static int name_of(struct views *v, enum grouping by, size_t index, char **key, struct err *err)
{
    switch (by) {
    case BY_JOB:
        *key = mem_printf("%zu", index);
        return 0;
    case BY_USER:
        return name_by(v, "SELECT user FROM job WHERE id = ?1", index, key, err);
    case BY_ACCOUNT:
        return name_by(v, "SELECT account FROM job WHERE id = ?1", index, key, err);
    case BY_STAGE:
        return name_by(v, "SELECT stage FROM job WHERE id = ?1", index, key, err);
    case BY_QUEUE:
        return name_by(v, "SELECT queue FROM job WHERE id = ?1", index, key, err);
    case BY_NODE:
        return name_by(v,
                       "SELECT n.name FROM gpu g JOIN node n ON n.id = g.node_id WHERE g.id = ?1",
                       index, key, err);
    case BY_CATEGORY:
        *key = mem_strdup(category_names[index]);
        return 0;
    case BY_MONTH:
        *key = mem_printf("%04zu-%02zu", 1970 + index / 12, index % 12 + 1);
        return 0;
    }
    return 0;
}

static int compare_named(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

static void merge(struct cell *sum, const struct cell *more)
{
    for (int i = 0; i < CATEGORY_COUNT; i++) {
        sum->ms[i] += more->ms[i];
    }
    sum->cost += more->cost;
}

/* Groups with their keys, those of one key added up; by key, jobs by number. */
static int name_groups(struct views *v, const struct report *r, struct named **out, size_t *count,
                       struct err *err)
{
    struct named *items = NULL;
    size_t capacity = 0, n = 0;
    int rc = 0;
    for (size_t i = 0; i < r->capacity && rc == 0; i++) {
        if (r->groups[i].used) {
            void *array = items;
            mem_grow(&array, &capacity, n + 1, sizeof *items);
            items = array;
            items[n] = (struct named){.index = i, .cell = r->groups[i]};
            rc = name_of(v, r->by, i, &items[n].key, err);
            n++;
        }
    }
    *out = items;
    *count = n;
    if (rc != 0 || n == 0 || r->by == BY_JOB) {
        return rc;
    }
    qsort(items, n, sizeof *items, compare_named);
    size_t last = 0;
    for (size_t i = 1; i < n; i++) {
        if (strcmp(items[last].key, items[i].key) == 0) {
            merge(&items[last].cell, &items[i].cell);
            free(items[i].key);
        } else {
            items[++last] = items[i];
        }
    }
    *count = last + 1;
    return 0;
}

/* ------------------------------------------------------------------ the message */

static Ds__CostItem *make_item(const char *key, const struct cell *cell)
{
    Ds__CostItem *item = mem_alloc(sizeof *item);
    ds__cost_item__init(item);
    item->key = mem_strdup(key);
    item->cost_micro_usd = cell->cost;
    item->productive_gpu_ms = (uint64_t)cell->ms[CATEGORY_PRODUCTIVE];
    for (int i = 0; i < CATEGORY_COUNT; i++) {
        item->gpu_ms += (uint64_t)cell->ms[i];
        if (i != CATEGORY_PRODUCTIVE && cell->ms[i] > 0) {
            Ds__BadputEntry *bad = mem_alloc(sizeof *bad);
            ds__badput_entry__init(bad);
            bad->category = mem_strdup(category_names[i]);
            bad->gpu_ms = (uint64_t)cell->ms[i];
            views_push(&item->badput, &item->n_badput, bad);
        }
    }
    return item;
}

static Ds__Capacity *make_capacity(const struct report *r)
{
    Ds__Capacity *c = mem_alloc(sizeof *c);
    ds__capacity__init(c);
    c->idle = (uint64_t)r->all.ms[CATEGORY_IDLE];
    c->down = (uint64_t)r->all.ms[CATEGORY_DOWN];
    c->planned_down = (uint64_t)r->all.ms[CATEGORY_PLANNED_DOWN];
    for (int i = CATEGORY_INIT; i < CATEGORY_COUNT; i++) {
        c->allocated += (uint64_t)r->all.ms[i];
    }
    c->reported = (uint64_t)r->reported_ms;
    return c;
}

static int make_cost(struct views *v, struct report *r, Ds__Cost **out, struct err *err)
{
    TRY(read_intervals(v, r, err));
    TRY(measure_reported(v, r, err));
    struct named *items;
    size_t count;
    int rc = name_groups(v, r, &items, &count, err);
    if (rc == 0) {
        Ds__Cost *cost = mem_alloc(sizeof *cost);
        ds__cost__init(cost);
        struct cell total = {0};
        for (size_t i = 0; i < count; i++) {
            views_push(&cost->items, &cost->n_items, make_item(items[i].key, &items[i].cell));
            merge(&total, &items[i].cell);
        }
        cost->total = make_item("total", &total);
        cost->capacity = make_capacity(r);
        *out = cost;
    }
    for (size_t i = 0; i < count; i++) {
        free(items[i].key);
    }
    free(items);
    return rc;
}

static int parse_request(struct report *r, const Ds__CostReportRequest *request, int64_t now_ms,
                         struct err *err)
{
    const char *by = request->by != NULL ? request->by : "job";
    int found = -1;
    for (int i = 0; i < GROUPINGS; i++) {
        if (strcmp(groupings[i], by) == 0) {
            found = i;
        }
    }
    if (found < 0) {
        return err_set(err, ERR_INVALID,
                       "cannot group by '%.40s' (allowed: job, user, account, stage, queue, node, "
                       "category, month)",
                       by);
    }
    *r = (struct report){.by = (enum grouping)found, .to_ms = now_ms};
    r->job = request->has_job ? request->job : 0;
    if (request->has_from_ms && request->from_ms > 0) {
        r->from_ms = request->from_ms;
    }
    if (request->has_to_ms && request->to_ms < now_ms) {
        r->to_ms = request->to_ms;
    }
    if (request->has_from_ms && request->has_to_ms && request->from_ms > request->to_ms) {
        return err_set(err, ERR_INVALID, "the report ends before it begins (--from is after --to)");
    }
    return 0;
}

int views_cost(struct views *v, const Ds__CostReportRequest *request, int64_t now_ms,
               Ds__Cost **out, struct err *err)
{
    struct report r;
    TRY(parse_request(&r, request, now_ms, err));
    TRY(views_begin(v, err));
    int rc = make_cost(v, &r, out, err);
    views_end(v);
    free(r.groups);
    lost_fini(&r.lost);
    return rc;
}
