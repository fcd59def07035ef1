#include "tests/unit/core/world.h"

/* A job goes PENDING, STARTING, RUNNING, COMPLETED as its nodes report, and leaves memory. */
static void test_life(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_register(&w, 1, "n1", 2);
    world_register(&w, 2, "n2", 2);
    uint64_t job = world_submit(&w, 2, 2);
    assert_int_equal(job, 1);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STARTING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), 2);
    const struct effect_start *start = &world_effect(&w, EFFECT_ATTEMPT_START, 1)->u.start;
    assert_int_equal(start->node_rank, 1);
    assert_int_equal(start->rank_first, 2);
    assert_int_equal(start->world_size, 4);
    assert_int_equal(start->gpu_count, 2);
    assert_int_equal(start->gpu_index[1], 1);
    assert_string_equal(start->master_addr, "127.0.0.1");
    assert_int_equal(start->resume_ckpt, 0);
    world_start(&w, 1, job, 1);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STARTING);
    world_start(&w, 2, job, 1);
    assert_int_equal(world_job(&w, job)->row.state, JOB_RUNNING);
    struct input_exit exits[2] = {world_exit(&w, 0, 0), world_exit(&w, 1, 0)};
    world_report(&w, 1, job, 1, 3, exits, 2);
    assert_int_equal(world_job(&w, job)->row.state, JOB_RUNNING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_FORGET), 1);
    exits[0].rank = 2;
    exits[1].rank = 3;
    world_report(&w, 2, job, 1, 3, exits, 2);
    assert_null(world_job(&w, job));
    assert_true(world_had_event(&w, "job.completed"));
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), ERR_CONFLICT);
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job + 1), ERR_NOT_FOUND);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
    };
    return cmocka_run_group_tests_name("core/job", tests, NULL, NULL);
}
