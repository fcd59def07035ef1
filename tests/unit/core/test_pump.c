#include "tests/unit/core/world.h"

#include "daemon/core/pump.h"

/* A store and a world that note in which order they were called. */
struct recorder {
    char log[256];
    int fail_commit;
    struct pump *pump;
    bool answer_back; /* the sink brings a new input */
    int64_t committed_ms;
    size_t jobs;
};

static int record_commit(void *store, struct core *core, int64_t now_ms, struct err *err)
{
    struct recorder *r = store;
    strcat(r->log, "C");
    r->committed_ms = now_ms;
    r->jobs += change_count(core_changes(core, TABLE_JOB));
    return r->fail_commit ? err_set(err, ERR_NOSPACE, "disk full") : 0;
}

static void record_release(void *world, const struct effect *effect)
{
    struct recorder *r = world;
    strcat(r->log, effect->kind == EFFECT_REPLY ? "r" : effect->kind == EFFECT_EVENT ? "e" : "x");
    if (effect->kind == EFFECT_REPLY && r->answer_back) {
        r->answer_back = false;
        struct input in = {.kind = INPUT_JOB_CANCEL, .token = 99, .now_ms = 5};
        in.u.job.job = effect->u.reply.id;
        pump_input(r->pump, &in);
    }
}

static const struct store_ops ops = {record_commit};
static const struct effect_sink sink = {record_release};

static struct recorder r;
static struct core *core;
static struct pump *pump;

static int setup(void **state)
{
    (void)state;
    struct core_config config;
    core_config_default(&config);
    core = core_create(&config);
    core_load_counters(
        core, &(struct core_counters){.term = 1, .now_ms = T0, .next_job = 1, .next_ckpt = 1});
    core_load_done(core);
    core_committed(core);
    r = (struct recorder){0};
    pump = pump_create(core, &ops, &r, &sink, &r);
    r.pump = pump;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pump_destroy(pump);
    core_destroy(core);
    return 0;
}

static void submit(int64_t now_ms)
{
    struct jobspec spec = world_spec(1, 1);
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = 1, .now_ms = now_ms};
    in.u.submit = (struct input_submit){
        .spec = &spec, .spec_json = "{}", .workdir = "/", .user = "u", .request_hash = "h"};
    pump_input(pump, &in);
}

/* Nothing leaves before the commit of what it says; one commit for a whole batch; effects in order.
 */
static void test_order(void **state)
{
    (void)state;
    assert_false(pump_is_dirty(pump));
    submit(T0);
    submit(T0);
    assert_true(pump_is_dirty(pump));
    assert_string_equal(r.log, "");
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_string_equal(r.log, "Cerer");
    assert_int_equal(r.jobs, 2);
    assert_false(pump_is_dirty(pump));
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_string_equal(r.log, "Cerer");
}

/* When the commit fails nothing leaves, and the caller is told. */
static void test_failed_commit(void **state)
{
    (void)state;
    r.fail_commit = 1;
    submit(T0);
    struct err err = {0};
    assert_int_equal(pump_flush(pump, &err), ERR_NOSPACE);
    assert_string_equal(err.text, "disk full");
    assert_string_equal(r.log, "C");
}

/* A refusal changes nothing, so it is answered without a commit. */
static void test_no_changes(void **state)
{
    (void)state;
    struct input in = {.kind = INPUT_JOB_CANCEL, .token = 1, .now_ms = T0};
    in.u.job.job = 7;
    pump_input(pump, &in);
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_string_equal(r.log, "r");
}

/* An input that arrives while effects are released belongs to the next batch. */
static void test_reentry(void **state)
{
    (void)state;
    r.answer_back = true;
    submit(T0);
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_string_equal(r.log, "Cer");
    assert_true(pump_is_dirty(pump));
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_string_equal(r.log, "CerCre");
}

/* Time never goes back, whatever stamps the inputs carry. */
static void test_time(void **state)
{
    (void)state;
    submit(T0 + 50);
    submit(T0 - 1000);
    assert_int_equal(core_now_ms(core), T0 + 50);
    assert_int_equal(pump_flush(pump, NULL), 0);
    assert_int_equal(r.committed_ms, T0 + 50);
    assert_int_equal(core->job_last->row.submitted_ms, T0 + 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reentry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/pump", tests, NULL, NULL);
}
