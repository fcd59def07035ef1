#include "tests/unit/core/world.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static enum job_state state_of(uint64_t job)
{
    return world_job(&w, job)->row.state;
}

/* A job goes PENDING, STARTING, RUNNING, COMPLETED as its nodes report, and leaves memory. */
static void test_life(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 2);
    world_register(&w, 2, "n2", 2);
    uint64_t job = world_submit(&w, 2, 2);
    assert_int_equal(job, 1);
    assert_int_equal(state_of(job), JOB_STARTING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), 2);
    const struct effect *order = world_effect(&w, EFFECT_ATTEMPT_START, 1);
    const struct effect_start *start = &order->u.start;
    assert_int_equal(order->session, 2);
    assert_int_equal(start->node_rank, 1);
    assert_int_equal(start->rank_first, 2);
    assert_int_equal(start->world_size, 4);
    assert_int_equal(start->gpu_count, 2);
    assert_int_equal(start->gpu_index[1], 1);
    assert_string_equal(start->master_addr, "127.0.0.1");
    assert_int_equal(start->resume_ckpt, 0);
    world_start(&w, 1, job, 1);
    assert_int_equal(state_of(job), JOB_STARTING);
    world_start(&w, 2, job, 1);
    assert_int_equal(state_of(job), JOB_RUNNING);
    assert_true(core_epoch_is_live(w.core, job, 1));
    struct input_exit exits[2] = {world_exit(&w, 0, 0), world_exit(&w, 1, 0)};
    world_report(&w, 1, job, 1, 3, exits, 2);
    assert_int_equal(state_of(job), JOB_RUNNING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_FORGET), 1);
    exits[0].rank = 2;
    exits[1].rank = 3;
    world_report(&w, 2, job, 1, 3, exits, 2);
    assert_null(world_job(&w, job));
    assert_false(core_epoch_is_live(w.core, job, 1));
    assert_true(world_had_event(&w, "job.completed"));
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), ERR_CONFLICT);
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job + 1), ERR_NOT_FOUND);
}

/* A job that waits is cancelled at once, one that runs when its ranks are gone, whatever they exit
 * with. */
static void test_cancel(void **state)
{
    (void)state;
    uint64_t waiting = world_submit(&w, 1, 1);
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, waiting), 0);
    assert_null(world_job(&w, waiting));
    world_register(&w, 1, "n1", 1);
    for (int code = 0; code < 2; code++) {
        uint64_t job = world_submit(&w, 1, 1);
        world_start(&w, 1, job, 1);
        assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), 0);
        assert_int_equal(state_of(job), JOB_STOPPING);
        const struct effect *stop = world_effect(&w, EFFECT_ATTEMPT_STOP, 0);
        assert_int_equal(stop->u.stop.grace_ms, w.core->config.stop_grace_ms);
        assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), 0);
        assert_int_equal(world_count(&w, EFFECT_ATTEMPT_STOP), 0); /* once is enough */
        world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, code));
        assert_null(world_job(&w, job));
    }
    assert_false(world_had_event(&w, "job.completed"));
    assert_false(world_had_event(&w, "job.requeued"));
}

/* A cancel that comes while a failed attempt is being cleared away wins over the restart. */
static void test_cancel_beats_restart(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    world_register(&w, 2, "n2", 1);
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9));
    assert_int_equal(state_of(job), JOB_STOPPING);
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), 0);
    world_report_exit(&w, 2, job, 1, 3, world_killed(&w, 1, 15));
    assert_null(world_job(&w, job));
    assert_true(world_had_event(&w, "job.cancelled"));
    assert_false(world_had_event(&w, "job.requeued"));
}

/* A held job does not start; released, it does, with a fresh budget. */
static void test_hold(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 1, 1);
    assert_int_equal(world_order(&w, INPUT_JOB_HOLD, job), 0);
    assert_int_equal(state_of(job), JOB_HELD);
    world_register(&w, 1, "n1", 1);
    assert_int_equal(state_of(job), JOB_HELD);
    assert_int_equal(world_order(&w, INPUT_JOB_RELEASE, job), 0);
    assert_int_equal(state_of(job), JOB_STARTING);
    world_start(&w, 1, job, 1);
    assert_int_equal(world_order(&w, INPUT_JOB_HOLD, job), 0);
    assert_int_equal(state_of(job), JOB_STOPPING);
    assert_int_equal(world_order(&w, INPUT_JOB_RELEASE, job), ERR_CONFLICT);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 80));
    assert_int_equal(state_of(job), JOB_HELD);
    assert_int_equal(world_order(&w, INPUT_JOB_RELEASE, job), 0);
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    /* one that completes while it is being held has completed */
    world_start(&w, 1, job, 2);
    world_order(&w, INPUT_JOB_HOLD, job);
    world_report_exit(&w, 1, job, 2, 3, world_exit(&w, 0, 0));
    assert_null(world_job(&w, job));
    assert_true(world_had_event(&w, "job.completed"));
}

/* time_limit counts the time of all attempts and ends the job as failed. */
static void test_time_limit(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    struct jobspec spec = world_spec(1, 1);
    spec.time_limit_ms = 20000;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    world_start(&w, 1, job, 1);
    for (int i = 0; i < 3; i++) {
        w.now_ms += 4000;
        world_heartbeat(&w, 1);
    }
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9)); /* at 12 s, starts again at once */
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    world_start(&w, 1, job, 2);
    world_run_to(&w, T0 + 19999);
    assert_int_equal(state_of(job), JOB_RUNNING);
    world_run_to(&w, T0 + 20000);
    assert_int_equal(state_of(job), JOB_STOPPING);
    world_report_exit(&w, 1, job, 2, 3, world_killed(&w, 0, 15));
    assert_null(world_job(&w, job));
    assert_true(world_had_event(&w, "job.failed"));
}

/* A job whose time ran out while its failed attempt was cleared away is not started for nothing. */
static void test_time_limit_and_failure(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    world_register(&w, 2, "n2", 1);
    struct jobspec spec = world_spec(2, 1);
    spec.time_limit_ms = 5000;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    w.now_ms += 4000;
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9));
    world_run_to(&w, w.now_ms + 2000);
    assert_int_equal(state_of(job), JOB_STOPPING);
    world_report_exit(&w, 2, job, 1, 3, world_exit(&w, 1, 85));
    assert_null(world_job(&w, job));
    assert_true(world_had_event(&w, "job.failed"));
    assert_false(world_had_event(&w, "job.requeued"));
}

/* Higher priority first, then the older; the first that does not fit holds up those behind it, a
 * held one or one in back-off does not. */
static void test_order(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 2);
    uint64_t running = world_submit(&w, 1, 1);
    struct jobspec spec = world_spec(1, 2);
    uint64_t large = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t small = world_submit(&w, 1, 1);
    assert_int_equal(state_of(small), JOB_PENDING); /* it would fit */
    spec = world_spec(1, 1);
    spec.priority = 5;
    uint64_t urgent = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(state_of(urgent), JOB_STARTING);
    char code[32], text[512];
    assert_true(core_why(w.core, large, code, sizeof code, text, sizeof text));
    assert_string_equal(code, "resources");
    assert_true(core_why(w.core, small, code, sizeof code, text, sizeof text));
    assert_string_equal(code, "queue");
    assert_non_null(strstr(text, "job 2 (j) goes first"));
    assert_false(core_why(w.core, running, code, sizeof code, text, sizeof text));
    world_report_exit(&w, 1, running, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(state_of(small), JOB_PENDING);
    world_order(&w, INPUT_JOB_HOLD, large);
    assert_int_equal(state_of(small), JOB_STARTING);
    assert_true(core_why(w.core, large, code, sizeof code, text, sizeof text));
    assert_string_equal(code, "held");
}

/* A gang starts with all its nodes or not at all. */
static void test_gang(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 3, 1);
    char code[32], text[512];
    core_why(w.core, job, code, sizeof code, text, sizeof text);
    assert_string_equal(code, "no_nodes");
    world_register(&w, 1, "n1", 1);
    world_register(&w, 2, "n2", 1);
    assert_int_equal(state_of(job), JOB_PENDING);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_IDLE);
    core_why(w.core, job, code, sizeof code, text, sizeof text);
    assert_string_equal(code, "nodes_unavailable");
    world_register(&w, 3, "n3", 1);
    assert_int_equal(state_of(job), JOB_STARTING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), 3);
}

/* Ranks without an accelerator are spread over the nodes, at most 64 on each. */
static void test_no_gpus(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 0);
    world_register(&w, 2, "n2", 0);
    uint64_t last = 0;
    for (int i = 0; i < 2 * NODE_HOSTED_MAX + 1; i++) {
        last = world_submit(&w, 1, 0);
        assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), i < 2 * NODE_HOSTED_MAX);
    }
    assert_int_equal(core_node(w.core, 1)->hosted, NODE_HOSTED_MAX);
    assert_int_equal(core_node(w.core, 2)->hosted, NODE_HOSTED_MAX);
    world_report_exit(&w, 1, 1, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(state_of(last), JOB_STARTING);
}

/* The fullest node that still has room is taken; a job that starts again gets its former node,
 * though another would fit better. */
static void test_placement(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 4);
    world_register(&w, 2, "n2", 2);
    world_register(&w, 3, "n3", 4);
    uint64_t a = world_submit(&w, 1, 1);
    assert_string_equal(world_job(&w, a)->attempt->nodes[0].node->row.name, "n2");
    uint64_t b = world_submit(&w, 1, 2);
    assert_string_equal(world_job(&w, b)->attempt->nodes[0].node->row.name, "n1");
    world_start(&w, 1, b, 1);
    world_report_exit(&w, 2, a, 1, 3, world_exit(&w, 0, 0));
    world_report_exit(&w, 1, b, 1, 2, world_killed(&w, 0, 9));
    assert_int_equal(state_of(b), JOB_STOPPING);
    world_report_exit(&w, 1, b, 1, 3, world_killed(&w, 1, 15));
    assert_null(world_job(&w, a));
    assert_int_equal(world_job(&w, b)->row.epoch, 2);
    assert_string_equal(world_job(&w, b)->attempt->nodes[0].node->row.name,
                        "n1"); /* n2 is fuller */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_beats_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_limit_and_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gang, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_gpus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_placement, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/job", tests, NULL, NULL);
}
