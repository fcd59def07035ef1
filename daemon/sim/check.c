/* What must be true, found out without asking the core: from the tables with SQL, and from what the
 * workers saw. */
#include "daemon/sim/sim.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/load.h"
#include "daemon/core/state.h"
#include "daemon/ledger_verify.h"

/* A resume point must be whole and on disk at the time of the order. */
void check_resume(struct sim *sim, const struct order *start)
{
    if (start->resume_ckpt == 0) {
        return;
    }
    for (size_t i = 0; i < sim->disk_count; i++) {
        const struct disk_ckpt *ckpt = &sim->disk[i];
        if (strcmp(ckpt->path, start->resume_path) == 0) {
            if (ckpt->removed || ckpt->shards != ckpt->world_size) {
                sim_fail(sim, "job %d is to resume from %s, which %s", (int)start->job, ckpt->path,
                         ckpt->removed ? "was removed" : "is not whole");
            }
            return;
        }
    }
    sim_fail(sim, "job %d is to resume from %s, which nobody wrote", (int)start->job,
             start->resume_path);
}

void check_leases(struct sim *sim, const struct core *core)
{
    struct core_config config;
    sim_config(&config);
    const struct change_list *list = core_changes(core, TABLE_ATTEMPT_NODE);
    for (size_t i = 0; i < change_count(list); i++) {
        const struct attempt_node_row *row = change_row(list, i);
        const struct node *node = core_node(core, row->node_id);
        if (row->phase != PHASE_LOST || strncmp(row->error, "silent", 6) != 0) {
            continue;
        }
        for (int w = 0; w < sim->options.nodes; w++) {
            const struct worker *worker = &sim->workers[w];
            /* What came after the decision, before its commit, does not count. */
            bool in_burst = sim->now_ms - worker->heard_ms < SIM_BURST_MS;
            int64_t since_ms = in_burst ? worker->heard_before_ms : worker->heard_ms;
            since_ms = since_ms > sim->coord_since_ms ? since_ms : sim->coord_since_ms;
            if (strcmp(worker->name, node->row.name) == 0 &&
                sim->now_ms - since_ms < config.lease_ms) {
                sim_fail(sim, "job %d is given up on %s after %d ms of silence, its lease is %d",
                         (int)row->job_id, worker->name, (int)(sim->now_ms - since_ms),
                         (int)config.lease_ms);
            }
        }
    }
}

/* The live state and what a reload would give are the same. */
void check_reload(struct sim *sim)
{
    struct err err = {0};
    struct core_config config;
    sim_config(&config);
    struct core *copy = core_create(&config);
    if (disk_reload(sim, copy, &err) != 0) {
        sim_fail(sim, "reload: %s", err.text);
    }
    const char *problem = core_check(copy);
    if (problem != NULL) {
        sim_fail(sim, "after a reload: %s", problem);
    }
    if (core_digest(copy) != core_digest(sim->core)) {
        sim_fail(sim, "a reload differs from the live state");
    }
    core_destroy(copy);
    sim_count(sim, COUNT_RELOADS);
}

/* The query must give no row; its first column is a sentence. */
void check_none(struct sim *sim, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        sim_fail(sim, "%s: %s", sqlite3_errmsg(db), sql);
    }
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        sim_fail(sim, "%s", (const char *)sqlite3_column_text(stmt, 0));
    } else if (rc != SQLITE_DONE) {
        sim_fail(sim, "%s: %s", sqlite3_errmsg(db), sql);
    }
    sqlite3_finalize(stmt);
}

static const char *const rules[] = {
    /* no accelerator in two allocations at a time */
    "SELECT printf('accelerator %d is allocated to jobs %d and %d at once', a.gpu_id, a.job_id, "
    "b.job_id)"
    " FROM allocation a JOIN attempt s ON s.job_id = a.job_id AND s.epoch = a.epoch"
    " JOIN allocation b ON b.gpu_id = a.gpu_id AND (b.job_id, b.epoch) <> (a.job_id, a.epoch)"
    " JOIN attempt t ON t.job_id = b.job_id AND t.epoch = b.epoch"
    " WHERE s.started_ms <= t.started_ms AND coalesce(a.released_ms, 9e18) > t.started_ms",
    /* epochs of a job follow each other, one live at most */
    "SELECT printf('attempt %d of job %d began before the one before had ended', b.epoch, b.job_id)"
    " FROM attempt a JOIN attempt b ON b.job_id = a.job_id AND b.epoch = a.epoch + 1"
    " WHERE coalesce(a.ended_ms, 9e18) > b.started_ms",
    "SELECT printf('job %d has %d attempts and epoch %d', j.id, (SELECT count(*) FROM attempt a "
    "WHERE a.job_id = j.id),"
    " j.epoch) FROM job j WHERE (SELECT count(*) FROM attempt a WHERE a.job_id = j.id) <> j.epoch",
    /* a checkpoint is committed while its own attempt lives, with all its shards */
    "SELECT printf('checkpoint %d of job %d was committed outside its attempt %d', c.id, c.job_id, "
    "c.epoch)"
    " FROM checkpoint c JOIN attempt a ON a.job_id = c.job_id AND a.epoch = c.epoch WHERE "
    "c.committed_ms IS NOT NULL"
    " AND (c.committed_ms < a.started_ms OR c.committed_ms > coalesce(a.ended_ms, 9e18))",
    "SELECT printf('checkpoint %d was committed without all shards', c.id) FROM checkpoint c WHERE "
    "c.committed_ms IS NOT"
    " NULL AND (SELECT count(*) FROM ckpt_shard s WHERE s.ckpt_id = c.id) <> c.world_size",
    /* an attempt resumes from the newest checkpoint that was good then */
    "SELECT printf('attempt %d of job %d resumes from checkpoint %d of a later epoch', a.epoch, "
    "a.job_id, c.id)"
    " FROM attempt a JOIN checkpoint c ON c.id = a.resume_ckpt_id WHERE c.epoch >= a.epoch OR "
    "c.job_id <> a.job_id"
    " OR c.committed_ms IS NULL OR c.committed_ms > a.started_ms",
    /* gangs are whole */
    "SELECT printf('attempt %d of job %d has not all its nodes', a.epoch, a.job_id) FROM attempt a "
    "JOIN job j ON"
    " j.id = a.job_id WHERE (SELECT count(*) FROM attempt_node n WHERE n.job_id = a.job_id AND "
    "n.epoch = a.epoch) <>"
    " a.nodes OR (SELECT count(*) FROM allocation n WHERE n.job_id = a.job_id AND "
    "n.epoch = a.epoch) <>"
    " a.nodes * j.gpus_per_node",
    /* completed means that every rank said so */
    "SELECT printf('job %d completed and its ranks did not', j.id) FROM job j WHERE j.state = "
    "'COMPLETED' AND"
    " ((SELECT count(*) FROM rank_exit x WHERE x.job_id = j.id AND x.epoch = j.epoch AND x.code = "
    "0 AND x.signal = 0)"
    "  <> (SELECT a.nodes FROM attempt a WHERE a.job_id = j.id AND a.epoch = j.epoch) * max(1, "
    "j.gpus_per_node))",
    /* restarts stay within the budget: never more than 3 without a newer checkpoint */
    "SELECT printf('job %d was restarted %d times in vain', id, fruitless) FROM job WHERE "
    "fruitless > restart_max",
    /* history has no holes */
    "SELECT printf('%d events, the last has number %d', count(*), max(seq)) FROM event HAVING "
    "count(*) <> max(seq)",
    /* every job's first and last state change is told */
    "SELECT printf('job %d was submitted without an event', id) FROM job WHERE NOT EXISTS (SELECT "
    "1 FROM event e WHERE"
    " e.job_id = job.id AND e.kind = 'job.submitted')",
    "SELECT printf('job %d is %s without one event of it', id, state) FROM job WHERE state IN "
    "('COMPLETED','FAILED',"
    "'CANCELLED') AND (SELECT count(*) FROM event e WHERE e.job_id = job.id AND e.kind = 'job.' || "
    "lower(job.state)) <> 1",
};

static void check_submits(struct sim *sim, sqlite3 *db)
{
    for (int i = 0; i < sim->options.jobs; i++) {
        const struct request *r = &sim->requests[i];
        if (r->state != PENDING_ACKED) {
            continue;
        }
        char *sql = sqlite3_mprintf(
            "SELECT printf('submit %d was acknowledged as job %d, which is not there') WHERE NOT"
            " EXISTS (SELECT 1 FROM job WHERE id = %d AND submit_key = 'key-%d')",
            i, (int)r->job, (int)r->job, i);
        check_none(sim, db, sql);
        sqlite3_free(sql);
    }
}

/* Why a job still waits, in the core's own words. */
static void check_waits(struct sim *sim)
{
    for (const struct job *job = sim->core->job_first; job != NULL; job = job->next) {
        char code[64] = "", text[512] = "";
        core_why(sim->core, job->row.id, code, sizeof code, text, sizeof text);
        sim_fail(sim, "job %d never ended: %s %s: %s", (int)job->row.id,
                 job_state_names[job->row.state], code, text);
    }
}

uint64_t check_number(struct sim *sim, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW) {
        sim_fail(sim, "%s: %s", sqlite3_errmsg(db), sql);
    }
    uint64_t value = (uint64_t)sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void count_seen(struct sim *sim, sqlite3 *db)
{
    uint64_t *n = sim->counts.n;
    n[COUNT_SUBMITS] = check_number(sim, db, "SELECT count(*) FROM job");
    n[COUNT_ATTEMPTS] = check_number(sim, db, "SELECT count(*) FROM attempt");
    n[COUNT_CKPTS] =
        check_number(sim, db, "SELECT count(*) FROM checkpoint WHERE committed_ms IS NOT NULL");
    n[COUNT_PREEMPTIONS] =
        check_number(sim, db, "SELECT count(*) FROM event WHERE kind = 'job.preempted'");
}

void check_database(struct sim *sim, bool final)
{
    struct err err = {0};
    sqlite3 *db = disk_database(sim, &err);
    if (db == NULL) {
        sim_fail(sim, "database: %s", err.text);
    }
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        check_none(sim, db, rules[i]);
    }
    sim_count(sim, COUNT_TABLES);
    check_submits(sim, db);
    check_schedule(sim, db);
    if (final) {
        check_waits(sim);
        check_none(sim, db,
                   "SELECT printf('job %d never ended: %s, %s', id, state, coalesce(reason_text, "
                   "'')) FROM job WHERE"
                   " state NOT IN ('COMPLETED','FAILED','CANCELLED')");
        check_none(sim, db,
                   "SELECT printf('checkpoint %d is still %s, published %d, removing %d', id, "
                   "state, published, removing)"
                   " FROM checkpoint WHERE state = 'WRITING' OR removing OR (state = 'COMMITTED' "
                   "AND NOT published)");
        check_none(sim, db,
                   "SELECT printf('node %s is %s', name, state) FROM node WHERE state <> 'UP'");
        check_none(sim, db,
                   "SELECT printf('accelerator %d is %s', id, category) FROM gpu WHERE category "
                   "<> 'idle'");
    }
    if (final) {
        count_seen(sim, db);
    }
    struct ledger_verdict verdict;
    if (ledger_verify(db, coord_now_ms(sim), &verdict, &err) != 0) {
        sim_fail(sim, "ledger: %s", err.text);
    }
    if (!verdict.ok) {
        sim_fail(sim, "ledger: %s", verdict.problems[0]);
    }
    ledger_verdict_fini(&verdict);
    sqlite3_close(db);
}

bool check_all_ended(struct sim *sim)
{
    for (int i = 0; i < sim->options.jobs; i++) {
        const struct request *r = &sim->requests[i];
        if (r->state != PENDING_ACKED || !sim->coord_up) {
            return false;
        }
        for (uint64_t job = r->job; job == r->job || job < r->job + r->array; job++) {
            if (core_job(sim->core, job) != NULL) {
                return false;
            }
        }
    }
    return true;
}
