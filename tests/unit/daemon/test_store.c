#include "tests/unit/core/world.h"

#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "daemon/core/job_wait.h"
#include "daemon/core/pump.h"
#include "daemon/prices.h"
#include "daemon/store.h"
#include "lib/file.h"

#include "tests/unit/daemon/data/schema_1.sql.h"

static char dir[64];
static struct err err;

static int setup(void **state)
{
    (void)state;
    err = (struct err){0};
    snprintf(dir, sizeof dir, "/tmp/ds-store-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

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
static const struct effect_sink sink = {ignore};

static struct core *new_core(void)
{
    struct core_config config;
    core_config_default(&config);
    return core_create(&config);
}

static uint64_t digest_of_tables(struct store *store)
{
    struct core *core = new_core();
    ok(store_load_readonly(store, core, &err));
    uint64_t digest = core_digest(core);
    core_destroy(core);
    return digest;
}

/* Runs SQL on the closed database, as an intruder would. */
static void tamper(const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(in_dir("ds.db"), &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s", message);
    }
    sqlite3_close(db);
}

static void submit(struct pump *pump, const char *key)
{
    struct jobspec spec = world_spec(1, 1);
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = 1, .now_ms = T0};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = "{}",
                                        .workdir = "/",
                                        .user = "u",
                                        .key = key,
                                        .request_hash = "h"};
    pump_input(pump, &in);
}

/* What was committed is there after a reopen, what was not is not; the term grows by one with each
 * load; time does not go back. */
static void test_reload(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    struct core *core = new_core();
    ok(store_load(store, core, T0, &err));
    assert_int_equal(core_term(core), 1);
    struct pump *pump = pump_create(core, &store_sqlite_ops, store, &sink, NULL);
    submit(pump, "k");
    submit(pump, NULL);
    ok(pump_flush(pump, &err));
    assert_true(core_digest(core) == digest_of_tables(store));
    submit(pump, NULL);
    assert_true(core_digest(core) != digest_of_tables(store));
    pump_destroy(pump);
    core_destroy(core);
    store_close(store);
    ok(store_open(&store, dir, &err));
    core = new_core();
    ok(store_load(store, core, 5, &err));
    assert_int_equal(core_term(core), 2);
    assert_int_equal(core_now_ms(core), T0);
    assert_int_equal(core->next_job, 3);
    assert_int_equal(core->queue_count, 2);
    int same;
    assert_int_equal(keys_find(&core->keys, "k", "h", &same), 1);
    assert_true(same);
    core_destroy(core);
    store_close(store);
}

/* Each table of schema.sql has the columns of its row list, in name and number: only then are a row
 * and its copy the same. */
static void test_schema(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    store_close(store);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(in_dir("ds.db"), &db), SQLITE_OK);
    for (int t = 0; t < TABLE_COUNT; t++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT name, pk FROM pragma_table_info('%s')", tables[t].name);
        sqlite3_stmt *stmt = NULL;
        assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
        size_t columns = 0;
        while (sqlite3_step(stmt) == SQLITE_ROW) {
            const char *name = (const char *)sqlite3_column_text(stmt, 0);
            size_t at = 0;
            while (at < tables[t].column_count && strcmp(tables[t].columns[at].name, name) != 0) {
                at++;
            }
            if (at == tables[t].column_count) {
                fail_msg("%s.%s is in schema.sql and not in rows.h", tables[t].name, name);
            }
            int pk = sqlite3_column_int(stmt, 1);
            assert_int_equal(pk, at < tables[t].key_count ? (int)at + 1 : 0);
            columns++;
        }
        sqlite3_finalize(stmt);
        assert_int_equal(columns, tables[t].column_count);
    }
    sqlite3_close(db);
}

/* Every column of every table, with type, default and constraints, as SQLite describes them. */
static void describe(struct buf *out)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(in_dir("ds.db"), &db), SQLITE_OK);
    sqlite3_stmt *stmt = NULL;
    const char *sql = "SELECT t.name, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk FROM"
                      " pragma_table_list t JOIN pragma_table_info(t.name) c WHERE t.schema='main'"
                      " ORDER BY t.name, c.cid";
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        for (int i = 0; i < 6; i++) {
            const char *text = (const char *)sqlite3_column_text(stmt, i);
            buf_printf(out, "%s ", text != NULL ? text : "-");
        }
        buf_append_str(out, "\n");
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

/* A database of the first version, with jobs that wait, run and ended, is brought up to date when
 * it is opened: the tables are as in a new one, the jobs go on. */
static void test_upgrade(void **state)
{
    (void)state;
    struct buf fresh = {0}, upgraded = {0};
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    store_close(store);
    describe(&fresh);
    assert_int_equal(unlink(in_dir("ds.db")), 0);
    tamper("PRAGMA application_id=1146307377; PRAGMA user_version=1;");
    tamper(schema_1_sql);
    tamper("INSERT INTO meta VALUES('term',4); INSERT INTO meta VALUES('clock_ms',2000000);"
           "INSERT INTO price VALUES(1,'*',0,0);"
           "INSERT INTO node VALUES(1,'n1','UP',NULL,NULL,0,'a','1','b',0,0);"
           "INSERT INTO node VALUES(2,'n2','UP',NULL,NULL,0,'a','1','b',0,0);"
           "INSERT INTO job(id,request_hash,name,user,account,queue,stage,priority,nodes_requested,"
           "gpus_per_node,has_train,restart_max,time_limit_ms,ckpt_keep,spec,workdir,state,"
           "submitted_ms,"
           "epoch) VALUES"
           "(1,'h','done','u','a','default','eval',0,1,0,0,3,0,3,'{}','/','COMPLETED',1000,1),"
           "(2,'h','runs','u','a','default','eval',0,2,0,0,3,0,3,'{}','/','RUNNING',1000,1),"
           "(3,'h','waits','u','a','elsewhere','eval',7,3,0,0,3,0,3,'{}','/','PENDING',1500,0);"
           "INSERT INTO attempt(job_id,epoch,state,term,started_ms,master_port) "
           "VALUES(1,1,'ENDED',4,1000,20000),(2,1,'RUNNING',4,1000,20001);"
           "INSERT INTO attempt_node VALUES(2,1,0,1,'STARTED',NULL),(2,1,1,2,'STARTED',NULL);");
    ok(store_open(&store, dir, &err));
    struct core *core = new_core();
    ok(store_load(store, core, T0, &err));
    assert_null(core_check(core));
    assert_int_equal(core->running_count, 1);
    assert_int_equal(core_job(core, 2)->attempt->node_count, 2);
    assert_int_equal(core_job(core, 2)->row.nodes_max, 2);
    assert_int_equal(core_job(core, 3)->row.nodes_min, 3);
    assert_int_equal(core_job(core, 3)->row.eligible_ms, 1500);
    assert_true(core_job(core, 3)->queued);
    assert_int_equal(job_outcome(core, 1), OUTCOME_COMPLETED);
    assert_true(core_digest(core) == digest_of_tables(store));
    core_destroy(core);
    store_close(store);
    describe(&upgraded);
    assert_string_equal(buf_cstr(&fresh), buf_cstr(&upgraded));
    buf_fini(&fresh);
    buf_fini(&upgraded);
    ok(store_open(&store, dir, &err)); /* and once more, with nothing to do */
    store_close(store);
}

/* A second coordinator on the same folder is refused with one clear line; when the first is gone it
 * may come. */
static void test_lock(void **state)
{
    (void)state;
    struct store *first = NULL, *second = NULL;
    ok(store_open(&first, dir, &err));
    assert_int_equal(store_open(&second, dir, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "in use by another dsd, pid"));
    assert_null(strchr(err.text, '\n'));
    store_close(first);
    ok(store_open(&second, dir, &err));
    store_close(second);
}

/* A database of somebody else, of a newer dsd, or a file that is no database is refused and left as
 * it is. */
static void test_foreign(void **state)
{
    (void)state;
    struct store *store = NULL;
    tamper("CREATE TABLE t(x); PRAGMA application_id=7");
    assert_int_equal(store_open(&store, dir, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "not a database of dsd"));
    unlink(in_dir("ds.db"));
    ok(store_open(&store, dir, &err));
    store_close(store);
    tamper("PRAGMA user_version=99");
    assert_int_equal(store_open(&store, dir, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "newer dsd"));
    ok(file_write_durable(in_dir("ds.db"),
                          "this is not a database, but it is long enough to be one", 55, 0600,
                          &err));
    assert_int_equal(store_open(&store, dir, &err), ERR_CORRUPT);
    struct buf text = {0};
    ok(file_read(in_dir("ds.db"), 1000, &text, &err));
    assert_int_equal(text.len, 55);
    buf_fini(&text);
}

/* A damaged page is found when the database is opened, and when it is checked beside a running one.
 */
static void test_damaged(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    struct core *core = new_core();
    ok(store_load(store, core, T0, &err));
    struct pump *pump = pump_create(core, &store_sqlite_ops, store, &sink, NULL);
    for (int i = 0; i < 200; i++) {
        submit(pump, NULL);
    }
    ok(pump_flush(pump, &err));
    ok(store_check(dir, &err)); /* while it is in use */
    pump_destroy(pump);
    core_destroy(core);
    store_close(store);
    struct buf text = {0};
    ok(file_read(in_dir("ds.db"), 10000000, &text, &err));
    for (size_t i = text.len / 2; i < text.len / 2 + 8192; i++) {
        text.data[i] ^= 0x5a;
    }
    ok(file_write_durable(in_dir("ds.db"), text.data, text.len, 0600, &err));
    buf_fini(&text);
    assert_int_equal(store_open(&store, dir, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "restore a backup"));
    assert_int_equal(store_check(dir, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "restore a backup"));
}

/* When the disk is full the commit fails with a sentence, nothing of the batch is there, and after
 * a reload all is as before. */
static void test_full_disk(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    struct core *core = new_core();
    ok(store_load(store, core, T0, &err));
    struct pump *pump = pump_create(core, &store_sqlite_ops, store, &sink, NULL);
    submit(pump, "first");
    ok(pump_flush(pump, &err));
    uint64_t before = digest_of_tables(store);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit stands in for the full disk */
    struct rlimit old, small = {.rlim_cur = 200000, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = 0;
    for (int i = 0; i < 2000 && rc == 0; i++) {
        for (int j = 0; j < 100; j++) {
            submit(pump, NULL);
        }
        rc = pump_flush(pump, &err);
        before = rc == 0 ? core_digest(core) : before;
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_true(rc == ERR_NOSPACE || rc == ERR_IO);
    assert_non_null(strstr(err.text, "ds.db"));
    pump_destroy(pump);
    core_destroy(core);
    store_close(store);
    ok(store_open(&store, dir, &err));
    assert_true(digest_of_tables(store) == before);
    store_close(store);
}

/* The ledger can only grow, by one row after the other, whatever SQL is tried on it. */
static void test_append_only(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    store_close(store);
    tamper("INSERT INTO price VALUES(1,'*',0,0); INSERT INTO node "
           "VALUES(1,'n','UP',NULL,NULL,0,'a','1','b',0,0,NULL,NULL,NULL,NULL);"
           "INSERT INTO gpu VALUES(1,1,0,'u','cpu',0,'ok',1,0,'idle',NULL,NULL,0,1);"
           "INSERT INTO ledger VALUES(1,1,'idle',NULL,NULL,0,5,1,0,zeroblob(32))");
    static const char *const attempts[] = {
        "UPDATE ledger SET end_ms = 6",
        "DELETE FROM ledger",
        "INSERT OR REPLACE INTO ledger VALUES(1,1,'idle',NULL,NULL,0,6,1,0,zeroblob(32))",
        "INSERT INTO ledger VALUES(3,1,'idle',NULL,NULL,5,6,1,0,zeroblob(32))",
        "INSERT INTO ledger VALUES(2,1,'idle',NULL,NULL,6,6,1,0,zeroblob(32))",
        "INSERT OR IGNORE INTO ledger VALUES(1,1,'idle',NULL,NULL,0,6,1,0,zeroblob(32))",
    };
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(in_dir("ds.db"), &db), SQLITE_OK);
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        if (sqlite3_exec(db, attempts[i], NULL, NULL, NULL) == SQLITE_OK) {
            fail_msg("not refused: %s", attempts[i]);
        }
    }
    sqlite3_close(db);
    /* and a newest row that does not follow from the one before is noticed at the next start */
    ok(store_open(&store, dir, &err));
    struct core *core = new_core();
    assert_int_equal(store_load(store, core, T0, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "altered"));
    core_destroy(core);
    store_close(store);
}

static void write_prices(const char *text)
{
    ok(file_write_durable(in_dir("prices.yaml"), text, strlen(text), 0600, &err));
}

/* Prices are added from the file, exactly to the micro-dollar; the same again is fine, another one
 * for the same date is refused. */
static void test_prices(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    write_prices("prices:\n  - {model: \"*\", usd: 0}\n  - {model: \"X 1\", usd: 2.000001}\n"
                 "  - {model: \"X 1\", usd: 3, effective: 2026-02-01}\n");
    ok(prices_load(store, in_dir("prices.yaml"), &err));
    ok(prices_load(store, in_dir("prices.yaml"), &err));
    struct core *core = new_core();
    ok(store_load(store, core, T0, &err));
    assert_int_equal(core->price_count, 3);
    assert_int_equal(price_micro_usd(core, price_at(core, "X 1", 1769903999999)), 2000001);
    assert_int_equal(price_micro_usd(core, price_at(core, "X 1", 1769904000000)), 3000000);
    assert_int_equal(price_micro_usd(core, price_at(core, "Y", T0)), 0);
    core_destroy(core);
    static const struct {
        const char *text;
        int code;
        const char *says;
    } bad[] = {
        {"prices:\n  - {model: \"X 1\", usd: 2.5}\n", ERR_CONFLICT, "prices.yaml:2:"},
        {"prices:\n  - {model: X, usd: -1}\n", ERR_INVALID, "prices.yaml:2:"},
        {"prices:\n  - {model: X, usd: 1.0000001}\n", ERR_INVALID, "six decimals"},
        {"prices:\n  - {model: X, usd: 1e3}\n", ERR_INVALID, "not a price"},
        {"prices:\n  - {model: X, usd: }\n", ERR_INVALID, "usd"},
        {"prices:\n  - {model: X, usd: 1000000.5}\n", ERR_INVALID, "not a price"},
        {"prices:\n  - {model: X, usd: 99999999999999999999}\n", ERR_INVALID, "not a price"},
        {"prices:\n  - {model: X, usd: 1, effective: tomorrow}\n", ERR_INVALID, "not a date"},
        {"prices:\n  - {model: X, usd: 1, effective: 2026-02-31}\n", ERR_INVALID, "not a date"},
        {"prices:\n  - {model: X, usd: 1, since: 2026-02-03}\n", ERR_INVALID, "since"},
        {"prices: 5\n", ERR_INVALID, "one key"},
        {"x: []\n", ERR_INVALID, "one key"},
        {"", ERR_INVALID, "prices"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_prices(bad[i].text);
        int rc = prices_load(store, in_dir("prices.yaml"), &err);
        if (rc != bad[i].code || strstr(err.text, bad[i].says) == NULL) {
            fail_msg("%s: %d %s", bad[i].text, rc, err.text);
        }
    }
    assert_int_equal(prices_load(store, in_dir("no.yaml"), &err), ERR_NOT_FOUND);
    store_close(store);
}

/* The price file that is installed is a good one. */
static void test_installed_prices(void **state)
{
    (void)state;
    struct store *store = NULL;
    ok(store_open(&store, dir, &err));
    ok(prices_load(store, "etc/prices.yaml", &err));
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schema, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upgrade, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_append_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_installed_prices, setup, teardown),
    };
    return cmocka_run_group_tests_name("daemon/store", tests, NULL, NULL);
}
