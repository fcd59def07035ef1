#include "tests/unit/core/world.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    world_register(&w, 1, "n1", 2);
    world_register(&w, 2, "n2", 2);
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

static uint64_t start_gang(void)
{
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    assert_int_equal(state_of(job), JOB_RUNNING);
    return job;
}

/* One bad exit makes the attempt fail: the rendezvous is void, every node with ranks left is
 * ordered to stop soon, and accelerators are free again node by node. */
static void test_fail(void **state)
{
    (void)state;
    uint64_t job = start_gang();
    w.now_ms += 1000;
    struct input_exit x = world_killed(&w, 1, 9);
    w.now_ms += 40;
    world_report_exit(&w, 2, job, 1, 2, x);
    assert_int_equal(state_of(job), JOB_STOPPING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_STOP), 2);
    assert_true(world_effect(&w, EFFECT_ATTEMPT_STOP, 0)->u.stop.grace_ms < 10000);
    assert_int_equal(world_count(&w, EFFECT_EPOCH_OVER), 1);
    assert_false(core_epoch_is_live(w.core, job, 1));
    const struct attempt_row *attempt = &world_job(&w, job)->attempt->row;
    assert_int_equal(attempt->detect_ms, 40);
    assert_int_equal(attempt->failing_ms, w.now_ms);
    world_report_exit(&w, 2, job, 1, 3, x);
    assert_int_equal(world_gpu(&w, 3)->category, CATEGORY_IDLE); /* n2 */
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_RECOVERY);
    assert_int_equal(state_of(job), JOB_STOPPING);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 85));
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    assert_int_equal(world_job(&w, job)->row.restarts, 1);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), 2);
}

/* A report again, or an older one late, changes nothing: the same rows, the same state. */
static void test_repeats(void **state)
{
    (void)state;
    uint64_t job = start_gang();
    uint64_t before = core_digest(w.core);
    world_report(&w, 1, job, 1, 1, NULL, 0);
    world_report(&w, 1, job, 1, 2, NULL, 0);
    assert_true(core_digest(w.core) == before);
    struct input_exit x = world_exit(&w, 0, 0);
    world_report(&w, 1, job, 1, 3, &x, 1);
    before = core_digest(w.core);
    world_report(&w, 1, job, 1, 3, &x, 1);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_FORGET), 1);
    world_report(&w, 1, job, 1, 2, NULL, 0);
    assert_true(core_digest(w.core) == before);
    /* a rank that is not this node's, and one that does not exist */
    world_report_exit(&w, 2, job, 1, 2, world_exit(&w, 0, 1));
    world_report_exit(&w, 2, job, 1, 2, world_exit(&w, 99, 1));
    assert_true(core_digest(w.core) == before);
}

/* Ranks of a node that ended without saying how are unknown, which is not success. */
static void test_unknown_exit(void **state)
{
    (void)state;
    uint64_t job = start_gang();
    world_report(&w, 1, job, 1, 3, NULL, 0);
    assert_int_equal(state_of(job), JOB_STOPPING);
    world_report_exit(&w, 2, job, 1, 3, world_killed(&w, 1, 15));
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    assert_int_equal(world_job(&w, job)->row.fruitless, 1);
}

/* A node that could not start its ranks fails the attempt, which is tried again. */
static void test_start_error(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 2, job, 1);
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .token = ++w.token, .session = 1};
    in.u.attempt = (struct input_attempt_report){
        .job = job, .epoch = 1, .phase = 3, .error = "no such folder /x"};
    world_step(&w, &in);
    assert_int_equal(state_of(job), JOB_STOPPING);
    world_report_exit(&w, 2, job, 1, 3, world_killed(&w, 1, 15));
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    assert_int_equal(world_job(&w, job)->row.fruitless, 1);
}

/* A report of an attempt that is over is answered with an order: to stop what lives, to forget what
 * does not. */
static void test_stale_report(void **state)
{
    (void)state;
    uint64_t job = start_gang();
    world_report(&w, 1, job, 7, 2, NULL, 0);
    assert_int_equal(world_effect(&w, EFFECT_ATTEMPT_STOP, 0)->u.stop.epoch, 7);
    world_report(&w, 1, 55, 1, 3, NULL, 0);
    assert_int_equal(world_effect(&w, EFFECT_ATTEMPT_FORGET, 0)->u.stop.job, 55);
    world_report(&w, 9, job, 1, 3, NULL, 0); /* who is that? */
    assert_int_equal(world_code(&w), ERR_AGAIN);
    assert_int_equal(state_of(job), JOB_RUNNING);
}

/* A worker that registers again gets its orders again, as its state demands: start, nothing, stop.
 */
static void test_redrive(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 2, 1);
    world_gone(&w, 1);
    world_register(&w, 3, "n1", 2);
    const struct effect *order = world_effect(&w, EFFECT_ATTEMPT_START, 0);
    assert_int_equal(order->session, 3);
    assert_int_equal(order->u.start.job, job);
    world_start(&w, 3, job, 1);
    world_gone(&w, 3);
    struct input_attempt_report has = {.job = job, .epoch = 1, .phase = 2};
    world_register_with(&w, 4, "n1", 2, &has, 1);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_START), 0);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_STOP), 0);
    world_gone(&w, 4);
    world_order(&w, INPUT_JOB_CANCEL, job);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_STOP), 1); /* n2 only */
    world_register_with(&w, 5, "n1", 2, &has, 1);
    assert_int_equal(world_effect(&w, EFFECT_ATTEMPT_STOP, 0)->session, 5);
    /* and what it did meanwhile counts */
    world_gone(&w, 5);
    struct input_exit x = world_killed(&w, 0, 15);
    struct input_attempt_report ended = {
        .job = job, .epoch = 1, .phase = 3, .exits = &x, .exit_count = 1};
    world_register_with(&w, 6, "n1", 2, &ended, 1);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_FORGET), 1);
    world_report_exit(&w, 2, job, 1, 3, world_killed(&w, 1, 15));
    assert_null(world_job(&w, job));
    /* told once more, it is told once more */
    world_gone(&w, 6);
    world_register_with(&w, 7, "n1", 2, &ended, 1);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_FORGET), 1);
}

/* A worker that comes back without an attempt that had started there has lost it; one that never
 * got the order is only ordered again, or let be when the attempt is stopping. */
static void test_not_listed(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 2, job, 1);
    world_gone(&w, 1);
    world_order(&w, INPUT_JOB_CANCEL, job);
    world_register(&w, 3, "n1", 2);
    assert_int_equal(world_job(&w, job)->attempt->nodes[0].row.phase, PHASE_ENDED);
    world_report_exit(&w, 2, job, 1, 3, world_killed(&w, 1, 15));
    assert_null(world_job(&w, job));
    job = world_submit(&w, 2, 1);
    world_start(&w, 3, job, 1);
    world_start(&w, 2, job, 1);
    world_gone(&w, 3);
    world_register(&w, 4, "n1", 2);
    assert_int_equal(world_job(&w, job)->attempt->nodes[0].row.phase, PHASE_LOST);
    assert_string_equal(world_job(&w, job)->attempt->row.cause, "node_lost");
    assert_int_equal(core_node(w.core, 1)->row.state, NODE_UP);
    world_report_exit(&w, 2, job, 1, 3, world_exit(&w, 1, 85));
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
}

/* What a worker still has of an attempt that is over makes the node FENCING until it is gone. */
static void test_leftover(void **state)
{
    (void)state;
    struct input_attempt_report old = {.job = 77, .epoch = 3, .phase = 2};
    world_gone(&w, 1);
    world_register_with(&w, 3, "n1", 2, &old, 1);
    assert_int_equal(world_effect(&w, EFFECT_ATTEMPT_STOP, 0)->u.stop.job, 77);
    assert_int_equal(core_node(w.core, 1)->row.state, NODE_FENCING);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_DOWN);
    uint64_t job = world_submit(&w, 2, 1);
    assert_int_equal(state_of(job), JOB_PENDING);
    world_report(&w, 3, 77, 3, 3, NULL, 0);
    assert_int_equal(core_node(w.core, 1)->row.state, NODE_UP);
    assert_int_equal(state_of(job), JOB_STARTING);
}

/* Two attempts that meet on one node get different ports. */
static void test_ports(void **state)
{
    (void)state;
    world_node_order(&w, INPUT_NODE_DRAIN, "n2");
    uint64_t a = world_submit(&w, 1, 0);
    w.core->next_job = a + 10000; /* the same port by arithmetic */
    uint64_t b = world_submit(&w, 1, 0);
    int64_t port_a = world_job(&w, a)->attempt->row.master_port;
    int64_t port_b = world_job(&w, b)->attempt->row.master_port;
    assert_in_range(port_a, 20000, 29999);
    assert_in_range(port_b, 20000, 29999);
    assert_int_not_equal(port_a, port_b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_exit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_start_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale_report, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redrive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftover, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/attempt", tests, NULL, NULL);
}
