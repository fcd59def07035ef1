#include "tests/unit/core/world.h"

static struct world w;
static uint64_t job;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    world_register(&w, 1, "n1", 1);
    job = world_submit(&w, 1, 1);
    world_start(&w, 1, job, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

/* A report of that many steps from `first` on; returns how many metric rows it made. */
static size_t report(uint64_t first, size_t count, double loss, double valid_loss)
{
    struct input_metric metrics[16];
    for (size_t i = 0; i < count; i++) {
        metrics[i] = (struct input_metric){.step = first + i,
                                           .epoch = 1,
                                           .tokens = (first + i) * 10,
                                           .loss = loss,
                                           .mtp_loss = NAN,
                                           .grad_norm = 1,
                                           .lr = NAN,
                                           .tokens_per_s = 2,
                                           .balance_maxvio = NAN,
                                           .valid_loss = valid_loss,
                                           .step_ms = 5};
    }
    struct input in = {.kind = INPUT_STEP_REPORT, .now_ms = w.now_ms, .session = 1};
    in.u.steps = (struct input_steps){.job = job,
                                      .epoch = (uint64_t)world_job(&w, job)->row.epoch,
                                      .steps = 50,
                                      .metrics = metrics,
                                      .metric_count = count};
    core_step(w.core, &in);
    size_t rows = change_count(core_changes(w.core, TABLE_METRIC));
    core_committed(w.core);
    return rows;
}

/* Steps move the job's progress; each is recorded once, however often it is reported. */
static void test_steps(void **state)
{
    (void)state;
    w.now_ms += 1000;
    assert_int_equal(report(1, 3, 3.5, NAN), 3);
    const struct job_row *row = &world_job(&w, job)->row;
    assert_int_equal(row->step, 3);
    assert_int_equal(row->steps, 50);
    assert_int_equal(row->tokens, 30);
    assert_true(row->loss == 3.5);
    assert_true(isnan(row->valid_loss));
    assert_int_equal(row->step_at_ms, w.now_ms);
    assert_int_equal(world_job(&w, job)->attempt->row.first_step, 1);
    assert_int_equal(world_job(&w, job)->attempt->row.first_step_ms, w.now_ms);
    w.now_ms += 1000;
    assert_int_equal(report(1, 3, 9, NAN), 0);
    assert_int_equal(row->step_at_ms, w.now_ms - 1000);
    assert_int_equal(report(2, 4, 3.25, 3.75), 2);
    assert_int_equal(row->step, 5);
    assert_true(row->loss == 3.25);
    assert_int_equal(report(6, 1, 3, NAN), 1);
    assert_true(row->valid_loss == 3.75); /* the last one there was */
}

/* A step whose loss is not a number is progress, but there is no row to draw. */
static void test_nan(void **state)
{
    (void)state;
    assert_int_equal(report(1, 1, NAN, NAN), 0);
    assert_int_equal(world_job(&w, job)->row.step, 1);
    assert_true(isnan(world_job(&w, job)->row.loss));
}

/* The end of an attempt says how many steps it has lost: those after the newest checkpoint. */
static void test_lost_steps(void **state)
{
    (void)state;
    report(1, 8, 3, NAN);
    world_shard(&w, 1, job, 1, 5, 1, 0);
    struct job *j = world_job(&w, job);
    struct attempt *attempt = j->attempt;
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .now_ms = w.now_ms, .session = 1};
    struct input_exit x = world_killed(&w, 0, 9);
    in.u.attempt = (struct input_attempt_report){
        .job = job, .epoch = 1, .phase = 3, .exits = &x, .exit_count = 1};
    core_step(w.core, &in);
    assert_int_equal(attempt->row.lost_steps, 3); /* before the commit frees it */
    assert_int_equal(attempt->row.last_step, 8);
    core_committed(w.core);
    world_start(&w, 1, job, 2);
    /* the steps are done again: progress goes back, then on */
    assert_int_equal(report(6, 1, 3, NAN), 1);
    assert_int_equal(j->row.step, 6);
}

/* Steps of an epoch that is over, of a job that never was, or from a node that has no part in it
 * are refused. */
static void test_stale(void **state)
{
    (void)state;
    assert_int_equal(world_steps(&w, 1, job, 2, 1, 0, 0), ERR_STALE);
    assert_int_equal(world_steps(&w, 1, job + 1, 1, 1, 0, 0), ERR_NOT_FOUND);
    assert_int_equal(world_steps(&w, 5, job, 1, 1, 0, 0), ERR_STALE);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(world_steps(&w, 1, job, 1, 1, 0, 0), ERR_STALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nan, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/progress", tests, NULL, NULL);
}
