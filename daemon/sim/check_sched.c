/* What the scheduler has promised, looked up in the tables: limits and quotas, maintenance and
 * drains, dependencies, arrays, elastic sizes, preemption, spares, fair shares. */
#include <math.h>
#include <sqlite3.h>
#include <string.h>

#include "daemon/sim/sim.h"

/* A quota or limit holds at every start: what runs now is more, and the newest of it was started
 * after the limit was set. */
#define LIMIT_HOLDS(what, limit, since)                                                            \
    " HAVING " what " > " limit " AND max(a.started_ms) > " since

static const char *const rules[] = {
    "SELECT printf('%d nodes are at work for account %s, user %s; the quota is %d', sum(a.nodes), "
    "q.account, q.user, q.nodes) FROM quota q JOIN job j ON (q.account IS NULL OR q.account = "
    "j.account) AND (q.user IS NULL OR q.user = j.user) JOIN attempt a ON a.job_id = j.id AND "
    "a.ended_ms IS NULL WHERE q.class IS NULL GROUP BY q.id" LIMIT_HOLDS(
        "sum(a.nodes)", "q.nodes",
        "q.set_ms") " AND max(a.started_ms) < coalesce(q.expires_ms, 9e18)",
    "SELECT printf('%d nodes are at work for account %s, its limit is %d', sum(a.nodes), c.name, "
    "c.nodes_max) FROM account c JOIN job j ON j.account = c.name JOIN attempt a ON a.job_id = "
    "j.id AND a.ended_ms IS NULL GROUP BY c.name" LIMIT_HOLDS("sum(a.nodes)", "c.nodes_max",
                                                              "c.changed_ms"),
    "SELECT printf('%d nodes are at work for queue %s, its limit is %d', sum(a.nodes), q.name, "
    "q.nodes_max) FROM queue q JOIN job j ON j.queue = q.name JOIN attempt a ON a.job_id = j.id "
    "AND a.ended_ms IS NULL GROUP BY q.name" LIMIT_HOLDS("sum(a.nodes)", "q.nodes_max",
                                                         "q.changed_ms"),
    "SELECT printf('%d jobs run in queue %s, its limit is %d', count(*), q.name, q.jobs_max) FROM "
    "queue q JOIN job j ON j.queue = q.name JOIN attempt a ON a.job_id = j.id AND a.ended_ms IS "
    "NULL GROUP BY q.name" LIMIT_HOLDS("count(*)", "q.jobs_max", "q.changed_ms"),
    "SELECT printf('%d jobs of user %s run in queue %s, the limit is %d', count(*), j.user, "
    "q.name, q.user_jobs_max) FROM queue q JOIN job j ON j.queue = q.name JOIN attempt a ON "
    "a.job_id = j.id AND a.ended_ms IS NULL GROUP BY q.name, j.user" LIMIT_HOLDS(
        "count(*)", "q.user_jobs_max", "q.changed_ms"),
    /* nothing starts on a node under maintenance (the simulation's windows are of one node) */
    "SELECT printf('job %d was started on %s during its maintenance', a.job_id, w.name) FROM "
    "reservation r JOIN node w ON w.name = r.nodes JOIN attempt_node n ON n.node_id = w.id JOIN "
    "attempt a ON a.job_id = n.job_id AND a.epoch = n.epoch WHERE r.kind = 'maint' AND "
    "a.started_ms > max(r.start_ms, r.created_ms) AND a.started_ms < min(r.end_ms, "
    "coalesce(r.ended_ms, r.end_ms))",
    /* ... nor what, by its time limit, would run into it */
    "SELECT printf('job %d may run into the maintenance of %s', a.job_id, w.name) FROM reservation "
    "r JOIN node w ON w.name = r.nodes JOIN attempt_node n ON n.node_id = w.id AND n.epoch = 1 "
    "JOIN attempt a ON a.job_id = n.job_id AND a.epoch = 1 JOIN job j ON j.id = a.job_id WHERE "
    "r.kind = 'maint' AND j.time_limit_ms > 0 AND a.started_ms > r.created_ms AND a.started_ms < "
    "r.start_ms AND a.started_ms < coalesce(r.ended_ms, 9e18) AND a.started_ms + j.time_limit_ms > "
    "r.start_ms",
    /* an array has no more jobs at work than its limit */
    "SELECT printf('array %d has %d jobs at work, its limit is %d', j.array_id, count(*), "
    "j.array_limit) FROM job j JOIN attempt a ON a.job_id = j.id AND a.ended_ms IS NULL WHERE "
    "j.array_limit > 0 GROUP BY j.array_id HAVING count(*) > j.array_limit",
    /* a singleton (here: whoever is called sam) starts when those of its name before it are over */
    "SELECT printf('job %d was started while job %d, of the same name, was not over', j.id, k.id) "
    "FROM job j JOIN attempt a ON a.job_id = j.id AND a.epoch = 1 JOIN job k ON k.id < j.id AND "
    "k.name = j.name AND k.user = j.user AND coalesce(k.array_id, -k.id) <> coalesce(j.array_id, "
    "-j.id) WHERE j.name = 'sam' AND coalesce(k.ended_ms, 9e18) > a.started_ms",
    /* an elastic job keeps to its sizes */
    "SELECT printf('attempt %d of job %d has %d nodes, allowed are %d to %d', a.epoch, j.id, "
    "a.nodes, j.nodes_min, j.nodes_max) FROM job j JOIN attempt a ON a.job_id = j.id WHERE a.nodes "
    "NOT BETWEEN j.nodes_min AND j.nodes_max AND NOT EXISTS (SELECT 1 FROM event e WHERE e.job_id "
    "= j.id AND e.kind = 'job.resized')",
    /* nobody is made to stop before the least run time, for a job that is not more important, or
       against what was said */
    "SELECT printf('job %d was made to stop after %d ms, it was promised %d', j.id, e.at_ms - "
    "a.started_ms, j.min_runtime_ms) FROM event e JOIN job j ON j.id = e.job_id JOIN attempt a ON "
    "a.job_id = j.id AND a.epoch = e.epoch WHERE e.kind = 'job.preempted' AND e.at_ms < "
    "a.started_ms + j.min_runtime_ms",
    "SELECT printf('job %d (priority %d) was made to stop for job %d (priority %d)', v.id, "
    "v.priority, p.id, p.priority) FROM event e JOIN job v ON v.id = e.job_id JOIN job p ON p.id = "
    "CAST(substr(e.text, instr(e.text, 'made room for job ') + 18) AS INTEGER) WHERE e.kind = "
    "'job.preempted' AND (p.priority <= v.priority OR NOT v.preemptible) AND NOT EXISTS (SELECT 1 "
    "FROM event u WHERE u.kind = 'job.updated' AND u.job_id IN (v.id, p.id))",
    "SELECT printf('others were made to stop for job %d %d times since its newest checkpoint', id, "
    "preempts) FROM job WHERE preempts > 3",
    /* a spare is empty, and its job lives */
    "SELECT printf('%s is a spare of job %d, and job %d is on it', n.name, n.spare_job, a.job_id) "
    "FROM node n JOIN gpu g ON g.node_id = n.id JOIN allocation a ON a.gpu_id = g.id AND "
    "a.released_ms IS NULL WHERE n.spare_job <> 0 AND n.spare_job <> a.job_id",
    "SELECT printf('%s is a spare of job %d, which is %s', n.name, j.id, j.state) FROM node n JOIN "
    "job j ON j.id = n.spare_job WHERE j.state IN ('COMPLETED','FAILED','CANCELLED','HELD')",
};

static void check_drains(struct sim *sim, sqlite3 *db)
{
    for (size_t i = 0; i < sim->drain_count; i++) {
        const struct drain *d = &sim->drains[i];
        char *sql = sqlite3_mprintf(
            "SELECT printf('job %%d was started on the drained node %%s', a.job_id, w.name) FROM"
            " attempt a JOIN attempt_node n ON n.job_id = a.job_id AND n.epoch = a.epoch JOIN node"
            " w ON w.id = n.node_id WHERE w.name = %Q AND a.started_ms > %lld AND a.started_ms < "
            "%lld",
            sim->workers[d->node].name, (long long)d->from_ms, (long long)d->to_ms);
        check_none(sim, db, sql);
        sqlite3_free(sql);
    }
}

/* ---- dependencies */
/* Of the jobs ?1..?2 that the job ?3..?4 needed: those for which it did not wait. What can never
 * be met holds a job; whoever releases it knows. */
static const char *const needs[] = {
    [DEPENDENCY_AFTER] = "NOT EXISTS (SELECT 1 FROM attempt s WHERE s.job_id = d.id AND "
                         "s.started_ms <= a.started_ms) AND coalesce(d.ended_ms, 9e18) > "
                         "a.started_ms",
    [DEPENDENCY_AFTER_ANY] = "coalesce(d.ended_ms, 9e18) > a.started_ms",
    [DEPENDENCY_AFTER_OK] = "NOT (d.state = 'COMPLETED' AND d.ended_ms <= a.started_ms) AND NOT "
                            "EXISTS (SELECT 1 FROM event e WHERE e.job_id = a.job_id AND e.kind = "
                            "'job.released' AND e.at_ms <= a.started_ms)",
    [DEPENDENCY_AFTER_NOT_OK] = "coalesce(d.ended_ms, 9e18) > a.started_ms AND NOT EXISTS (SELECT "
                                "1 FROM event e WHERE e.job_id = a.job_id AND e.kind = "
                                "'job.released' AND e.at_ms <= a.started_ms)",
};
static const char *const verbs[] = {"start", "end", "complete", "fail"};

static uint64_t last_of(const struct request *r)
{
    return r->job + (r->array > 0 ? r->array - 1 : 0);
}

static void check_dependencies(struct sim *sim, sqlite3 *db)
{
    for (int i = 0; i < sim->options.jobs; i++) {
        const struct request *r = &sim->requests[i];
        if (r->state != PENDING_ACKED || r->needs == 0) {
            continue;
        }
        char *sql = sqlite3_mprintf(
            "SELECT printf('job %%d was started before job %%d, which it was to wait for, did %s', "
            "a.job_id, d.id) FROM attempt a JOIN job d ON d.id BETWEEN %lld AND %lld WHERE "
            "a.job_id BETWEEN %lld AND %lld AND a.epoch = 1 AND %s",
            verbs[r->need], (long long)r->needs, (long long)last_of(&sim->requests[r->after]),
            (long long)r->job, (long long)last_of(r), needs[r->need]);
        check_none(sim, db, sql);
        sqlite3_free(sql);
    }
}

static void check_not_before(struct sim *sim, sqlite3 *db)
{
    for (int i = 0; i < sim->options.jobs; i++) {
        const struct request *r = &sim->requests[i];
        if (r->state == PENDING_ACKED && r->not_before_ms > 0) {
            char *sql = sqlite3_mprintf(
                "SELECT printf('job %%d was started %%d ms before it might', job_id, %lld - "
                "started_ms) FROM attempt WHERE job_id BETWEEN %lld AND %lld AND epoch = 1 AND "
                "started_ms < %lld",
                (long long)r->not_before_ms, (long long)r->job, (long long)last_of(r),
                (long long)r->not_before_ms);
            check_none(sim, db, sql);
            sqlite3_free(sql);
        }
    }
}

/* ---- fair shares: what each has used, faded, from the attempts alone */
static double faded(double from_ms, double to_ms, double now_ms, double half_life_ms)
{
    double scale = half_life_ms / log(2);
    return scale *
           (exp2((to_ms - now_ms) / half_life_ms) - exp2((from_ms - now_ms) / half_life_ms));
}

static void check_share(struct sim *sim, sqlite3 *db, const char *account, const char *user)
{
    struct core_config config;
    sim_config(&config);
    double now_ms = (double)core_now_ms(sim->core), sum = 0;
    sqlite3_stmt *stmt = NULL;
    const char *sql = "SELECT a.nodes * j.gpus_per_node, a.started_ms, a.ended_ms FROM attempt a "
                      "JOIN job j ON j.id = a.job_id WHERE j.account = ?1 AND j.user = ?2";
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        sim_fail(sim, "%s: %s", sqlite3_errmsg(db), sql);
    }
    sqlite3_bind_text(stmt, 1, account, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, user, -1, SQLITE_STATIC);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        bool is_over = sqlite3_column_type(stmt, 2) != SQLITE_NULL;
        sum +=
            sqlite3_column_double(stmt, 0) *
            faded(sqlite3_column_double(stmt, 1), is_over ? sqlite3_column_double(stmt, 2) : now_ms,
                  now_ms, (double)config.policy.priority.half_life_ms);
    }
    sqlite3_finalize(stmt);
    double used = core_used_gpu_ms(sim->core, account, user);
    if (fabs(used - sum) > 1e-6 * sum + 1) {
        sim_fail(sim, "user %s of account %s has used %.3f accelerator-ms, by the attempts %.3f",
                 user, account, used, sum);
    }
    sim_count(sim, COUNT_SHARES);
}

static void check_shares(struct sim *sim, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3_prepare_v2(db, "SELECT account, user FROM fair_usage", -1, &stmt, NULL);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        check_share(sim, db, (const char *)sqlite3_column_text(stmt, 0),
                    (const char *)sqlite3_column_text(stmt, 1));
    }
    sqlite3_finalize(stmt);
}

void check_schedule(struct sim *sim, sqlite3 *db)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        check_none(sim, db, rules[i]);
    }
    sim->counts.n[COUNT_SPARES] +=
        check_number(sim, db, "SELECT count(*) FROM node WHERE spare_job <> 0");
    check_drains(sim, db);
    check_dependencies(sim, db);
    check_not_before(sim, db);
    if (!pump_is_dirty(sim->pump)) { /* else the tables are behind */
        check_shares(sim, db);
    }
}
