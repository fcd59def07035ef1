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

static enum node_state state_of(uint64_t node)
{
    return core_node(w.core, node)->row.state;
}

/* Heartbeats of one node, every 5 s up to then. */
static void beat_until(session_id session, int64_t at_ms)
{
    while (w.now_ms + 5000 <= at_ms) {
        world_run_to(&w, w.now_ms + 5000);
        world_heartbeat(&w, session);
    }
    world_run_to(&w, at_ms);
}

/* An idle node is DOWN when its lease is over, connected or not, and UP when it registers again.
 * Its accelerators are booked so. */
static void test_down(void **state)
{
    (void)state;
    world_gone(&w, 1);
    assert_int_equal(state_of(1), NODE_UP);
    beat_until(2, T0 + 29999);
    assert_int_equal(state_of(1), NODE_UP);
    beat_until(2, T0 + 30000);
    assert_int_equal(state_of(1), NODE_DOWN);
    assert_int_equal(state_of(2), NODE_UP);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_DOWN);
    assert_int_equal(world_booked(&w, 1, CATEGORY_IDLE, 0), 30000);
    /* n2 stays connected but says nothing */
    world_run_to(&w, T0 + 60000);
    assert_int_equal(state_of(2), NODE_DOWN);
    assert_int_equal(world_effect(&w, EFFECT_DROP_SESSION, 0)->session, 2);
    assert_int_equal(core_session_of_node(w.core, 2), 0);
    world_register(&w, 3, "n1", 2);
    assert_int_equal(state_of(1), NODE_UP);
    assert_int_equal(world_booked(&w, 1, CATEGORY_DOWN, 0), 30000);
    assert_int_equal(core_deadline(w.core), w.now_ms + 30000);
}

/* A silent node with ranks is FENCING, its part of the attempt LOST; it is UP again when its worker
 * says the ranks are gone. */
static void test_fencing(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 2, 2);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    world_gone(&w, 1);
    beat_until(2, T0 + 30000);
    assert_int_equal(state_of(1), NODE_FENCING);
    const struct attempt *attempt = world_job(&w, job)->attempt;
    assert_string_equal(attempt->row.cause, "node_lost");
    assert_int_equal(attempt->row.detect_ms, 30000);
    assert_int_equal(attempt->nodes[0].row.phase, PHASE_LOST);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_DOWN);
    assert_int_equal(world_gpu(&w, 3)->category, CATEGORY_RECOVERY);
    struct input_exit exits[2] = {world_exit(&w, 2, 85), world_exit(&w, 3, 85)};
    world_report(&w, 2, job, 1, 3, exits, 2);
    assert_int_equal(world_job(&w, job)->row.state, JOB_PENDING);
    assert_int_equal(world_job(&w, job)->row.fruitless, 1);
    /* the node comes back with the zombie */
    struct input_attempt_report zombie = {.job = job, .epoch = 1, .phase = 2};
    world_register_with(&w, 3, "n1", 2, &zombie, 1);
    assert_int_equal(state_of(1), NODE_FENCING);
    assert_int_equal(world_count(&w, EFFECT_ATTEMPT_STOP), 1);
    assert_int_equal(world_job(&w, job)->row.state, JOB_PENDING);
    assert_int_equal(world_shard(&w, 3, job, 1, 10, 4, 0), ERR_STALE);
    assert_int_equal(world_steps(&w, 3, job, 1, 10, 0, 0), ERR_STALE);
    exits[0] = world_killed(&w, 0, 9);
    exits[1] = world_killed(&w, 1, 9);
    world_report(&w, 3, job, 1, 3, exits, 2);
    assert_int_equal(state_of(1), NODE_UP);
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
}

/* Steps newer than the silence keep a node's ranks trusted: unreachable is not failed. */
static void test_steps_extend_the_lease(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 2, 2);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    world_gone(&w, 1);
    for (uint64_t step = 1; step <= 10; step++) {
        beat_until(2, w.now_ms + 8000);
        assert_int_equal(world_steps(&w, 2, job, 1, step, 0, 0), 0);
        assert_int_equal(state_of(1), NODE_UP);
    }
    int64_t last_ms = w.now_ms;
    assert_int_equal(last_ms, T0 + 80000);
    assert_int_equal(world_steps(&w, 2, job, 1, 10, 0, 0), 0); /* a repeat is no sign of life */
    beat_until(2, last_ms + 29999);
    assert_int_equal(world_steps(&w, 2, job, 1, 10, 0, 0), 0);
    assert_int_equal(world_job(&w, job)->row.state, JOB_RUNNING);
    beat_until(2, last_ms + 30000);
    assert_int_equal(state_of(1), NODE_FENCING);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STOPPING);
}

/* Draining lets ranks finish and takes no new ones; it outlives silence and return, until somebody
 * resumes. */
static void test_drain(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 1, 1); /* on n1 */
    world_start(&w, 1, job, 1);
    assert_int_equal(world_node_order(&w, INPUT_NODE_DRAIN, "n1"), 0);
    assert_int_equal(state_of(1), NODE_DRAINING);
    assert_string_equal(core_node(w.core, 1)->row.reason, "fans");
    assert_string_equal(core_node(w.core, 1)->row.by_user, "op");
    assert_int_equal(world_gpu(&w, 2)->category, CATEGORY_PLANNED_DOWN);
    assert_int_equal(world_job(&w, job)->row.state, JOB_RUNNING);
    uint64_t other = world_submit(&w, 2, 1);
    assert_int_equal(world_job(&w, other)->row.state, JOB_PENDING);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(state_of(1), NODE_DRAINED);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_PLANNED_DOWN);
    world_gone(&w, 1);
    beat_until(2, w.now_ms + 90000);
    assert_int_equal(state_of(1), NODE_DRAINED);
    world_register(&w, 3, "n1", 2);
    assert_int_equal(state_of(1), NODE_DRAINED);
    assert_int_equal(world_job(&w, other)->row.state, JOB_PENDING);
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n1"), 0);
    assert_int_equal(state_of(1), NODE_UP);
    assert_int_equal(world_job(&w, other)->row.state, JOB_STARTING);
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n1"), 0);
    assert_int_equal(world_node_order(&w, INPUT_NODE_DRAIN, "nx"), ERR_NOT_FOUND);
}

/* A node that is lost while it drains comes back drained; a drained one that is silent is DOWN when
 * resumed. */
static void test_drain_and_loss(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 1, 1);
    world_start(&w, 1, job, 1);
    world_node_order(&w, INPUT_NODE_DRAIN, "n1");
    world_gone(&w, 1);
    beat_until(2, T0 + 30000);
    assert_int_equal(state_of(1), NODE_FENCING);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_DOWN);
    assert_int_equal(world_job(&w, job)->row.epoch, 2); /* on n2 */
    world_register(&w, 3, "n1", 2);
    assert_int_equal(state_of(1), NODE_DRAINED);
    world_gone(&w, 3);
    beat_until(2, w.now_ms + 60000);
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n1"), 0);
    assert_int_equal(state_of(1), NODE_DOWN);
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n1"), ERR_CONFLICT);
    world_register(&w, 4, "n1", 2);
    assert_int_equal(state_of(1), NODE_UP);
}

/* A new connection under the same name replaces the old one, whose words count no more. */
static void test_replaced(void **state)
{
    (void)state;
    world_register(&w, 9, "n1", 2);
    assert_int_equal(world_effect(&w, EFFECT_DROP_SESSION, 0)->session, 1);
    assert_int_equal(core_session_of_node(w.core, 1), 9);
    world_gone(&w, 1);
    assert_int_equal(core_session_of_node(w.core, 1), 9);
}

/* A worker that has seen a newer coordinator, or says what cannot be, is turned away. */
static void test_refused(void **state)
{
    (void)state;
    struct input in = {.kind = INPUT_WORKER_REGISTER, .token = ++w.token, .session = 7};
    in.u.reg = (struct input_register){
        .name = "n3", .boot_id = "b", .version = "1", .addr = "127.0.0.1", .term_seen = 2};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_STALE);
    assert_int_equal(world_effect(&w, EFFECT_DROP_SESSION, 0)->session, 7);
    in.u.reg.term_seen = 1;
    in.u.reg.name = "../n3";
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
    struct input_gpu twice[2] = {{.index = 0, .uuid = "a", .model = "cpu", .health = "ok"},
                                 {.index = 0, .uuid = "b", .model = "cpu", .health = "ok"}};
    in.u.reg.name = "n3";
    in.u.reg.gpus = twice;
    in.u.reg.gpu_count = 2;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
    assert_int_equal(w.core->node_count, 2);
}

/* An accelerator that is gone or ill takes no rank and is booked as down. */
static void test_gpus_come_and_go(void **state)
{
    (void)state;
    world_register(&w, 3, "n1", 1);
    assert_false(world_gpu(&w, 2)->present);
    assert_int_equal(world_gpu(&w, 2)->category, CATEGORY_DOWN);
    assert_int_equal(node_free_gpus(core_node(w.core, 1)), 1);
    struct input_gpu ill[2] = {{.index = 0, .uuid = "a", .model = "cpu", .health = "Xid 79"},
                               {.index = 1, .uuid = "b", .model = "gpu", .health = "ok"}};
    struct input in = {.kind = INPUT_WORKER_REGISTER, .session = 3};
    in.u.reg = (struct input_register){
        .name = "n1", .boot_id = "b", .version = "1", .addr = "x", .gpus = ill, .gpu_count = 2};
    world_step(&w, &in);
    assert_int_equal(world_gpu(&w, 1)->category, CATEGORY_DOWN);
    assert_int_equal(world_gpu(&w, 2)->category, CATEGORY_IDLE);
    assert_string_equal(world_gpu(&w, 2)->model, "gpu");
    assert_int_equal(w.core->gpu_count, 4);
}

/* After a start every node has the recovering window to come back, whatever the time was when the
 * coordinator died. */
static void test_grace_after_start(void **state)
{
    (void)state;
    struct core_config config;
    core_config_default(&config);
    struct core *core = core_create(&config);
    core_load_counters(
        core, &(struct core_counters){.term = 2, .now_ms = T0, .next_job = 1, .next_ckpt = 1});
    struct node_row node = {.id = 1, .state = NODE_UP};
    row_set_text(&node.name, "n1");
    assert_int_equal(core_load_row(core, TABLE_NODE, &node, NULL), 0);
    core_load_done(core);
    struct input in = {.kind = INPUT_TICK, .now_ms = T0 + config.recovering_ms - 1};
    core_step(core, &(struct input){.kind = INPUT_TICK, .now_ms = T0});
    assert_int_equal(core_deadline(core), T0 + config.recovering_ms);
    core_step(core, &in);
    assert_int_equal(core_node(core, 1)->row.state, NODE_UP);
    in.now_ms++;
    core_step(core, &in);
    assert_int_equal(core_node(core, 1)->row.state, NODE_DOWN);
    core_destroy(core);
}

/* When the coordinator itself stood still, the nodes are not blamed for the silence. */
static void test_own_pause(void **state)
{
    (void)state;
    w.now_ms += 120000;
    struct input in = {.kind = INPUT_TICK};
    world_step(&w, &in);
    assert_int_equal(state_of(1), NODE_UP);
    world_heartbeat(&w, 1);
    world_run_to(&w, w.now_ms + 29000);
    assert_int_equal(state_of(2), NODE_UP);
    world_run_to(&w, w.now_ms + 1000);
    assert_int_equal(state_of(2), NODE_DOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fencing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_steps_extend_the_lease, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_and_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gpus_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grace_after_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_pause, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/node", tests, NULL, NULL);
}
