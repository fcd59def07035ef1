#include "tests/unit/core/world.h"

#include <sqlite3.h>
#include <unistd.h>

#include "daemon/core/pump.h"
#include "daemon/ledger_verify.h"
#include "daemon/store.h"
#include "lib/file.h"

static char dir[64], path[96];
static struct err err;
static sqlite3 *db;

static void ok(int rc)
{
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
}

static void ignore(void *world, const struct effect *effect)
{
    (void)world;
    (void)effect;
}

/* A small honest history: a gang on two nodes that fails once, then completes; a node that goes
 * away. Made by the world's core, written by the store after each step. */
static void make_history(void)
{
    static const struct effect_sink sink = {ignore};
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    ok(store_set_price(store, "cpu", 0, 3600000, &err));
    ok(store_set_price(store, "cpu", T0 + 2500, 7200000, &err));
    struct world w = {.now_ms = T0};
    struct core_config config;
    core_config_default(&config);
    w.core = core_create(&config);
    ok(store_load(store, w.core, T0, &err));
    struct pump *pump = pump_create(w.core, &store_sqlite_ops, store, &sink, NULL);
    w.pump = pump;
    world_register(&w, 1, "n1", 2);
    world_register(&w, 2, "n2", 2);
    w.now_ms += 1000;
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    w.now_ms += 1000;
    world_steps(&w, 1, job, 1, 1, 0, 0);
    w.now_ms += 1000;
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9));
    w.now_ms += 100;
    world_report_exit(&w, 2, job, 1, 3, world_exit(&w, 1, 85));
    world_start(&w, 1, job, 2);
    world_start(&w, 2, job, 2);
    w.now_ms += 1000;
    world_steps(&w, 1, job, 2, 1, 10, 5);
    w.now_ms += 1000;
    world_report_exit(&w, 1, job, 2, 3, world_exit(&w, 0, 0));
    world_report_exit(&w, 2, job, 2, 3, world_exit(&w, 1, 0));
    w.now_ms += 1000;
    job = world_submit(&w, 1, 1); /* still running at the end */
    world_start(&w, 1, job, 1);
    w.now_ms += 10;
    world_steps(&w, 1, job, 1, 1, 0, 0);
    pump_destroy(pump);
    effect_list_fini(&w.effects);
    core_destroy(w.core);
    store_close(store);
}

static int setup(void **state)
{
    (void)state;
    err = (struct err){0};
    snprintf(dir, sizeof dir, "/tmp/ds-audit-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/ds.db", dir);
    make_history();
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sqlite3_close(db);
    return file_remove_tree(dir, NULL);
}

/* An honest history passes, and its sums are what it was. */
static void test_honest(void **state)
{
    (void)state;
    struct ledger_verdict v;
    ok(ledger_verify(db, T0 + 10000, &v, &err));
    if (!v.ok) {
        fail_msg("%s", v.problems[0]);
    }
    assert_true(v.rows > 10);
    assert_int_equal(strlen(v.head), 64);
    assert_int_equal(v.reported_ms, 4 * 10000);
    assert_int_equal(v.allocated_ms + v.idle_ms + v.down_ms + v.planned_down_ms, v.reported_ms);
    /* two nodes x one accelerator: 2000 ms (n1) and 2100 (n2) in the first attempt, 2000 each in
     * the second, 3900 of the last job */
    assert_int_equal(v.allocated_ms, 2000 + 2100 + 2 * 2000 + 3900);
    assert_int_equal(v.down_ms, 0);
    ledger_verdict_fini(&v);
}

/* Any one change to what was booked is found, and said in a sentence that fits. */
static void test_tampered(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *says;
    } cases[] = {
        {"UPDATE ledger SET cost_micro_usd = cost_micro_usd + 1 WHERE seq = 3",
         "row 3 or the one before was altered"},
        {"UPDATE ledger SET category = 'productive' WHERE category = 'lost_progress'",
         "was altered"},
        {"UPDATE ledger SET job_id = 99 WHERE seq = (SELECT min(seq) FROM ledger WHERE job_id = 1)",
         "was altered"},
        {"UPDATE ledger SET end_ms = end_ms + 1 WHERE seq = 4", "was altered"},
        {"DELETE FROM ledger WHERE seq = 5", "row 5 is missing"},
        {"DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)",
         "the open meter begins at"},
        {"UPDATE ledger SET hash = zeroblob(32) WHERE seq = 6",
         "row 6 or the one before was altered"},
        {"UPDATE gpu SET since_ms = since_ms + 7 WHERE id = 2", "the open meter begins at"},
        {"UPDATE gpu SET first_seen_ms = first_seen_ms - 9 WHERE id = 1", "follows a gap of 9 ms"},
        {"UPDATE price SET micro_usd_per_gpu_hour = 1 WHERE id = 1", "its time and price make"},
        {"UPDATE allocation SET released_ms = released_ms + 3 WHERE released_ms IS NOT NULL",
         "was allocated for"},
        {"UPDATE attempt SET started_ms = started_ms - 5 WHERE epoch = 2", "was allocated for"},
        {"DELETE FROM allocation WHERE job_id = 1 AND epoch = 1", "was allocated for 0 ms"},
        {"UPDATE gpu SET category = 'idle', job_id = NULL, epoch = NULL WHERE job_id IS NOT NULL",
         "was allocated for"},
        {"UPDATE price SET effective_ms = effective_ms + 1 WHERE id = 2",
         "begins before its price"},
    };
    assert_int_equal(sqlite3_exec(db,
                                  "DROP TRIGGER ledger_no_update; DROP TRIGGER ledger_no_delete",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf honest = {0};
        assert_int_equal(
            sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL), SQLITE_OK);
        ok(file_read(path, 100000000, &honest, &err));
        char *message = NULL;
        if (sqlite3_exec(db, cases[i].sql, NULL, NULL, &message) != SQLITE_OK ||
            sqlite3_changes(db) == 0) {
            fail_msg("%s: %s", cases[i].sql, message != NULL ? message : "changes nothing");
        }
        struct ledger_verdict v;
        ok(ledger_verify(db, T0 + 10000, &v, &err));
        bool found = false;
        for (size_t j = 0; j < v.problem_count; j++) {
            found |= strstr(v.problems[j], cases[i].says) != NULL;
        }
        if (v.ok || !found) {
            fail_msg("%s: %s", cases[i].sql,
                     v.problem_count > 0 ? v.problems[0] : "nothing was found");
        }
        ledger_verdict_fini(&v);
        sqlite3_close(db);
        unlink(path);
        ok(file_write_durable(path, honest.data, honest.len, 0600, &err));
        buf_fini(&honest);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    }
}

/* An empty ledger is in order. */
static void test_empty(void **state)
{
    (void)state;
    sqlite3 *none = NULL;
    assert_int_equal(sqlite3_open(":memory:", &none), SQLITE_OK);
    struct ledger_verdict v;
    assert_int_equal(ledger_verify(none, 5, &v, &err), ERR_IO); /* no tables at all */
    sqlite3_close(none);
    char empty[] = "/tmp/ds-audit-XXXXXX";
    assert_non_null(mkdtemp(empty));
    struct store *store = NULL;
    ok(store_open(&store, empty, &err));
    store_close(store);
    char file[64];
    snprintf(file, sizeof file, "%s/ds.db", empty);
    assert_int_equal(sqlite3_open_v2(file, &none, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    ok(ledger_verify(none, 5, &v, &err));
    assert_true(v.ok);
    assert_int_equal(v.rows, 0);
    assert_string_equal(v.head, "0000000000000000000000000000000000000000000000000000000000000000");
    ledger_verdict_fini(&v);
    sqlite3_close(none);
    ok(file_remove_tree(empty, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_honest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tampered, setup, teardown),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests_name("daemon/ledger_verify", tests, NULL, NULL);
}
