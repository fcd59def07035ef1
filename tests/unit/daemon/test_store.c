#include "tests/unit/core/world.h"

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/core/pump.h"
#include "daemon/store.h"
#include "lib/file.h"
#include "lib/mem.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ds-store-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static size_t released;
static void count_release(void *world, const struct effect *effect)
{
    (void)world;
    (void)effect;
    released++;
}
static const struct effect_sink sink = {count_release};

static struct core *new_core(void)
{
    struct core_config config;
    core_config_default(&config);
    return core_create(&config);
}

static uint64_t digest_of_tables(struct store *store)
{
    struct err err = {0};
    struct core *core = new_core();
    if (store_load_readonly(store, core, &err) != 0) {
        fail_msg("%s", err.text);
    }
    uint64_t digest = core_digest(core);
    core_destroy(core);
    return digest;
}

/* What was submitted is there after a reload, and the reloaded state equals the live one. */
static void test_reload(void **state)
{
    (void)state;
    struct err err = {0};
    struct store *store = NULL;
    assert_int_equal(store_open(&store, dir, &err), 0);
    struct core *core = new_core();
    assert_int_equal(store_load(store, core, T0, &err), 0);
    assert_int_equal(core_term(core), 1);
    struct pump *pump = pump_create(core, &store_sqlite_ops, store, &sink, NULL);
    struct jobspec spec = world_spec(1, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct input in = {.kind = INPUT_JOB_SUBMIT, .token = i, .now_ms = T0 + (int64_t)i};
        in.u.submit = (struct input_submit){.spec = &spec,
                                            .spec_json = "{}",
                                            .workdir = "/",
                                            .user = "u",
                                            .key = i == 1 ? "k" : NULL,
                                            .request_hash = "h"};
        pump_input(pump, &in);
    }
    assert_int_equal(pump_flush(pump, &err), 0);
    assert_int_equal(released, 6); /* a reply and an event each */
    assert_true(core_digest(core) == digest_of_tables(store));
    pump_destroy(pump);
    core_destroy(core);
    store_close(store);
    store = NULL;
    assert_int_equal(store_open(&store, dir, &err), 0);
    core = new_core();
    assert_int_equal(store_load(store, core, 0, &err), 0);
    assert_int_equal(core_term(core), 2);
    assert_int_equal(core_now_ms(core), T0 + 3); /* the wall clock went back, time does not */
    assert_int_equal(core->next_job, 4);
    core_destroy(core);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reload, make_dir, remove_dir),
    };
    return cmocka_run_group_tests_name("daemon/store", tests, NULL, NULL);
}
