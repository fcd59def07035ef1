#include "tests/unit/core/world.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    return 0;
}

/* Whatever a test did: the closed intervals of each accelerator tile the time from its first sight
 * to its open meter, each chained to the one before. */
static void check_tiling(void)
{
    uint8_t head[ROW_HASH_BYTES] = {0};
    for (size_t i = 0; i < w.ledger_count; i++) {
        uint8_t hash[ROW_HASH_BYTES];
        assert_int_equal(w.ledger[i].seq, i + 1);
        ledger_row_hash(&w.ledger[i], head, hash);
        assert_memory_equal(hash, w.ledger[i].hash, sizeof hash);
        memcpy(head, hash, sizeof head);
        assert_true(w.ledger[i].end_ms > w.ledger[i].start_ms);
    }
    assert_memory_equal(head, w.core->ledger_head, sizeof head);
    for (uint64_t gpu = 1; gpu <= w.core->gpu_count; gpu++) {
        int64_t next_ms = world_gpu(&w, gpu)->first_seen_ms;
        for (size_t i = 0; i < w.ledger_count; i++) {
            if (w.ledger[i].gpu_id == gpu) {
                assert_int_equal(w.ledger[i].start_ms, next_ms);
                next_ms = w.ledger[i].end_ms;
            }
        }
        assert_int_equal(world_gpu(&w, gpu)->since_ms, next_ms);
    }
}

static int teardown(void **state)
{
    (void)state;
    check_tiling();
    world_fini(&w);
    return 0;
}

static void pass(int64_t ms)
{
    w.now_ms += ms;
}

/* Rounded half up, exact where doubles are not, no overflow for a century of an expensive machine.
 */
static void test_cost(void **state)
{
    (void)state;
    assert_int_equal(ledger_cost(3600000, 2000000), 2000000);
    assert_int_equal(ledger_cost(1, 1800000), 1); /* 0.5 */
    assert_int_equal(ledger_cost(1, 1799999), 0);
    assert_int_equal(ledger_cost(3, 600000), 1);
    assert_int_equal(ledger_cost(7200000 + 1, 3), 6);
    assert_int_equal(ledger_cost(100LL * 365 * 24 * 3600000, 1000000000), 876000000000000);
    assert_int_equal(ledger_cost(0, 5), 0);
}

/* The hash of a row is SHA-256 over the text that ledger.h gives; this one was computed by another
 * program. */
static void test_hash(void **state)
{
    (void)state;
    struct ledger_row row = {.seq = 1,
                             .gpu_id = 2,
                             .category = CATEGORY_PRODUCTIVE,
                             .job_id = 3,
                             .epoch = 4,
                             .start_ms = 5,
                             .end_ms = 6,
                             .price_id = 7,
                             .cost_micro_usd = 8};
    uint8_t zero[ROW_HASH_BYTES] = {0}, hash[ROW_HASH_BYTES];
    static const uint8_t expected[ROW_HASH_BYTES] = {
        0x86, 0x28, 0x5b, 0x06, 0x08, 0x30, 0xf0, 0x24, 0x7f, 0x85, 0x65,
        0xee, 0x4b, 0x86, 0xad, 0xe8, 0x17, 0xb0, 0x57, 0xf6, 0x2e, 0xb9,
        0xeb, 0x07, 0xce, 0xc3, 0xe9, 0xc9, 0xa2, 0x8f, 0x2b, 0xe9};
    static const uint8_t expected_idle[ROW_HASH_BYTES] = {
        0x9b, 0xe7, 0xd5, 0xe4, 0xc1, 0x7f, 0x24, 0x82, 0x2e, 0x4a, 0xef,
        0x3b, 0xcf, 0x08, 0xcd, 0x73, 0x8c, 0x01, 0x85, 0x8a, 0x0e, 0xb2,
        0x98, 0xb5, 0xf7, 0x3d, 0x71, 0xcf, 0xb0, 0x92, 0x9c, 0x7c};
    ledger_row_hash(&row, zero, hash);
    assert_memory_equal(hash, expected, sizeof hash);
    row = (struct ledger_row){.seq = 2,
                              .gpu_id = 2,
                              .category = CATEGORY_IDLE,
                              .start_ms = 6,
                              .end_ms = 9,
                              .price_id = 7};
    ledger_row_hash(&row, expected, hash);
    assert_memory_equal(hash, expected_idle, sizeof hash);
}

/* idle, init until the first step, productive until the end, idle. */
static void test_first_attempt(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    pass(1000);
    uint64_t job = world_submit(&w, 1, 1);
    pass(300);
    world_start(&w, 1, job, 1);
    pass(200);
    world_steps(&w, 1, job, 1, 1, 0, 0);
    pass(5000);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 0));
    pass(700);
    world_gone(&w, 1);
    world_node_order(&w, INPUT_NODE_DRAIN, "n1");
    assert_int_equal(world_booked(&w, 1, CATEGORY_IDLE, 0), 1700);
    assert_int_equal(world_booked(&w, 1, CATEGORY_INIT, job), 500);
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, job), 5000);
    assert_int_equal(w.ledger_count, 4);
    for (size_t i = 0; i < w.ledger_count; i++) {
        assert_int_equal(w.ledger[i].epoch, w.ledger[i].job_id == 0 ? 0 : 1);
    }
}

/* The waits that were reported are carved out of productive time, never more than there was. */
static void test_waits(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 2);
    uint64_t job = world_submit(&w, 1, 2);
    world_start(&w, 1, job, 1);
    world_steps(&w, 1, job, 1, 1, 0, 0);
    pass(10000);
    world_steps(&w, 1, job, 1, 2, 300, 20);
    world_steps(&w, 1, job, 1, 2, 300, 20); /* a repeat */
    pass(10000);
    world_steps(&w, 1, job, 1, 3, 100, 5);
    struct input_exit exits[2] = {world_exit(&w, 0, 0), world_exit(&w, 1, 0)};
    world_report(&w, 1, job, 1, 3, exits, 2);
    for (uint64_t gpu = 1; gpu <= 2; gpu++) {
        assert_int_equal(world_booked(&w, gpu, CATEGORY_CHECKPOINT_STALL, job), 400);
        assert_int_equal(world_booked(&w, gpu, CATEGORY_DATA_WAIT, job), 25);
        assert_int_equal(world_booked(&w, gpu, CATEGORY_PRODUCTIVE, job), 20000 - 425);
    }
    job = world_submit(&w, 1, 2);
    world_start(&w, 1, job, 1);
    world_steps(&w, 1, job, 1, 1, 0, 0);
    pass(100);
    world_steps(&w, 1, job, 1, 2, 80, UINT64_MAX);
    world_report(&w, 1, job, 1, 3, exits, 2);
    assert_int_equal(world_booked(&w, 1, CATEGORY_CHECKPOINT_STALL, job), 80);
    assert_int_equal(world_booked(&w, 1, CATEGORY_DATA_WAIT, job), 20);
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, job), 0);
}

/* A failure costs: what came after the newest checkpoint is lost, from there to the next attempt's
 * first step is recovery. */
static void test_failure(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    world_register(&w, 2, "n2", 1);
    uint64_t job = world_submit(&w, 2, 1);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    pass(100);
    world_steps(&w, 1, job, 1, 1, 0, 0);
    pass(4000);
    world_steps(&w, 1, job, 1, 5, 30, 0);
    pass(10);
    world_shard(&w, 1, job, 1, 5, 2, 0); /* of step 5, at 4100 */
    pass(500);
    world_shard(&w, 2, job, 1, 5, 2, 1);
    pass(2000);
    world_steps(&w, 1, job, 1, 8, 7, 0);
    pass(1000);
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9));
    pass(250);
    world_report_exit(&w, 2, job, 1, 3, world_exit(&w, 1, 85));
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    for (uint64_t gpu = 1; gpu <= 2; gpu++) {
        assert_int_equal(world_booked(&w, gpu, CATEGORY_INIT, job), 100);
        assert_int_equal(world_booked(&w, gpu, CATEGORY_PRODUCTIVE, job), 4000 - 30);
        assert_int_equal(world_booked(&w, gpu, CATEGORY_CHECKPOINT_STALL, job), 30);
        assert_int_equal(world_booked(&w, gpu, CATEGORY_LOST_PROGRESS, job), 3510);
    }
    assert_int_equal(world_booked(&w, 1, CATEGORY_RECOVERY, job), 0); /* released at once */
    assert_int_equal(world_booked(&w, 1, CATEGORY_IDLE, 0), 250);
    assert_int_equal(world_booked(&w, 2, CATEGORY_RECOVERY, job), 250);
    world_start(&w, 1, job, 2);
    world_start(&w, 2, job, 2);
    pass(1000);
    world_steps(&w, 1, job, 2, 6, 0, 0);
    assert_int_equal(world_booked(&w, 1, CATEGORY_RECOVERY, job), 1000);
    assert_int_equal(world_booked(&w, 2, CATEGORY_RECOVERY, job), 1250);
    const struct attempt_row *attempt = &world_job(&w, job)->attempt->row;
    assert_int_equal(attempt->restart_ms, 2250); /* from the report of step 8 */
    assert_int_equal(attempt->first_step, 6);
    assert_int_equal(w.ledger[w.ledger_count - 1].epoch, 2);
}

/* Without a checkpoint everything since the first step is lost; without a step nothing is. */
static void test_failure_without_checkpoint(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    uint64_t job = world_submit(&w, 1, 1);
    world_start(&w, 1, job, 1);
    pass(100);
    world_report_exit(&w, 1, job, 1, 3, world_killed(&w, 0, 9));
    assert_int_equal(world_booked(&w, 1, CATEGORY_INIT, job), 100);
    world_start(&w, 1, job, 2);
    pass(50);
    world_steps(&w, 1, job, 2, 1, 0, 0);
    pass(900);
    world_report_exit(&w, 1, job, 2, 3, world_killed(&w, 0, 9));
    assert_int_equal(world_booked(&w, 1, CATEGORY_RECOVERY, job), 50);
    assert_int_equal(world_booked(&w, 1, CATEGORY_LOST_PROGRESS, job), 900);
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, job), 0);
}

/* Work that somebody cancelled was not lost to a failure; work that a hold interrupts is lost from
 * its newest checkpoint on. */
static void test_stopped(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    for (int hold = 0; hold <= 1; hold++) {
        uint64_t job = world_submit(&w, 1, 1);
        world_start(&w, 1, job, 1);
        world_steps(&w, 1, job, 1, 1, 0, 0);
        pass(1000);
        world_steps(&w, 1, job, 1, 2, 0, 0);
        world_shard(&w, 1, job, 1, 2, 1, 0);
        pass(500);
        world_order(&w, hold ? INPUT_JOB_HOLD : INPUT_JOB_CANCEL, job);
        pass(20);
        world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 80));
        assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, job), hold ? 1000 : 1520);
        assert_int_equal(world_booked(&w, 1, CATEGORY_LOST_PROGRESS, job), hold ? 520 : 0);
    }
}

/* A command is productive while all its ranks run; when it fails, all of that is lost. */
static void test_command(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    struct jobspec spec = world_spec(1, 1);
    spec.has_train = false;
    uint64_t good = world_submit_spec(&w, &spec, NULL, "h");
    pass(10);
    world_start(&w, 1, good, 1);
    pass(1000);
    world_report_exit(&w, 1, good, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(world_booked(&w, 1, CATEGORY_INIT, good), 10);
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, good), 1000);
    uint64_t bad = world_submit_spec(&w, &spec, NULL, "h");
    world_start(&w, 1, bad, 1);
    pass(1000);
    world_report_exit(&w, 1, bad, 1, 3, world_killed(&w, 0, 9));
    assert_int_equal(world_booked(&w, 1, CATEGORY_LOST_PROGRESS, bad), 1000);
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, bad), 0);
}

/* A new price closes the meters at its very instant, though the tick comes later; each row has one
 * price. */
static void test_price_change(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 2);
    uint64_t job = world_submit(&w, 1, 1);
    world_start(&w, 1, job, 1);
    world_steps(&w, 1, job, 1, 1, 0, 0);
    price_add(w.core, "cpu", T0 + 5000, 3600000);
    price_add(w.core, "other", T0 + 6000, 1);
    price_add(w.core, "cpu", T0 + 7000, 7200000);
    pass(4000);
    world_steps(&w, 1, job, 1, 2, 100, 0);
    pass(2500);
    struct input in = {.kind = INPUT_TICK};
    world_step(&w, &in); /* at 6500 */
    assert_int_equal(world_gpu(&w, 1)->since_ms, T0 + 5000);
    assert_int_equal(world_gpu(&w, 2)->since_ms, T0 + 5000);
    assert_int_equal(world_booked(&w, 1, CATEGORY_CHECKPOINT_STALL, job), 100);
    pass(2500); /* 9000; no tick at 7000 at all */
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 0));
    assert_int_equal(world_booked(&w, 1, CATEGORY_PRODUCTIVE, job), 8900);
    assert_int_equal(world_booked(&w, 1, CATEGORY_CHECKPOINT_STALL, job), 100);
    int64_t cost = 0;
    for (size_t i = 0; i < w.ledger_count; i++) {
        const struct ledger_row *row = &w.ledger[i];
        assert_true(row->end_ms <= T0 + 5000 || row->start_ms >= T0 + 5000);
        assert_true(row->end_ms <= T0 + 7000 || row->start_ms >= T0 + 7000);
        assert_int_equal(row->cost_micro_usd, ledger_cost(row->end_ms - row->start_ms,
                                                          price_micro_usd(w.core, row->price_id)));
        cost += row->job_id == job ? row->cost_micro_usd : 0;
    }
    assert_int_equal(cost, 2000 + 2 * 2000); /* $3.60 an hour is a micro-dollar a ms */
}

/* Random histories of one meter after another: nothing is ever booked twice or not at all. */
static void test_random(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 1;
    print_message("SEED=%u\n", seed);
    world_register(&w, 1, "n1", 2);
    uint64_t step = 1;
    for (int i = 0; i < 100 && w.ledger_count < 450; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned roll = seed >> 16;
        pass(roll % 700);
        struct job *job = w.core->job_first;
        if (job == NULL) {
            world_start(&w, 1, world_submit(&w, 1, 1 + roll % 2), 1);
            continue;
        }
        uint64_t id = job->row.id, epoch = (uint64_t)job->row.epoch;
        uint32_t size = job->attempt->world_size;
        struct input_exit exits[2] = {world_killed(&w, 0, 9), world_killed(&w, 1, 9)};
        switch (roll % 8) {
        case 0:
            world_report(&w, 1, id, epoch, 3, exits, size);
            break;
        case 1:
            world_order(&w, INPUT_JOB_CANCEL, id);
            break;
        case 2:
            for (uint32_t rank = 0; rank < size; rank++) {
                world_shard(&w, 1, id, epoch, step, size, rank);
            }
            break;
        case 3:
            price_add(w.core, "cpu", w.now_ms + 1 + roll % 300, roll);
            break;
        default:
            world_steps(&w, 1, id, epoch, ++step, roll % 90, roll % 40);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_hash),
        cmocka_unit_test_setup_teardown(test_first_attempt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_without_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_price_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/ledger", tests, NULL, NULL);
}
