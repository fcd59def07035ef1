/* What `job plan` and `job why` predict is compared with what then happens: random queues of jobs
 * that run exactly as long as they said, none coming later. The first blocked job starts by the
 * time it was promised. The others mostly start to the millisecond when it was said; which nodes a
 * job gets is decided when it starts, and may leave one behind it other gaps than planned. */
#include "tests/unit/core/cluster.h"
#include "tests/unit/random.h"

#define NODES     6
#define NODE_GPUS 8
#define JOBS      24
#define ROUNDS    40
/* Nodes of a gang that ends come free one by one; until then its end is estimated anew. */
#define GANG_ENDS_MS MINUTE

static int64_t predicted_ms[JOBS + 1];
static bool is_checked[JOBS + 1];
static uint64_t first_blocked;
static uint32_t exact, later;

static void begin_round(void)
{
    struct core_config config;
    core_config_default(&config);
    config.policy.backfill.reservations = JOBS; /* each waiting job keeps its place ... */
    config.policy.backfill.overtaken_ms = 0;
    config.policy.priority.slowdown = config.policy.priority.size = 0; /* ... and the order stays */
    world_fini(&w);
    begin(&config);
    nodes(NODES, NODE_GPUS);
    first_blocked = 0;
    memset(is_checked, 0, sizeof is_checked);
}

static struct jobspec random_job(void)
{
    static const uint32_t gpus[] = {8, 8, 8, 4, 2, 1};
    struct jobspec spec = world_spec(1 + (uint32_t)random_below(NODES), gpus[random_below(6)]);
    spec.time_limit_ms = MINUTE + random_below(30 * MINUTE);

    spec.min_runtime_ms = 24 * HOUR; /* nobody is preempted */
    return spec;
}

/* A plan changes nothing and says what `job why` says of the same job once it is submitted. */
static uint64_t plan_and_submit(const struct jobspec *spec)
{
    struct input_submit request = {
        .spec = spec, .spec_json = "{}", .workdir = "/", .user = "u", .request_hash = "h"};
    struct core_plan plan;
    uint64_t before = core_digest(w.core);
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_true(core_digest(w.core) == before);
    uint64_t id = world_submit_spec(&w, spec, NULL, "h");
    assert_int_equal(runs(id), plan.action == PLAN_START);
    if (plan.action == PLAN_START) {
        assert_int_equal(world_job(&w, id)->attempt->node_count, plan.nodes);
    } else {
        assert_int_equal(plan.action, PLAN_WAIT);
        assert_int_equal(core_expected_start_ms(w.core, id), plan.start_ms);
    }
    return id;
}

static void fill_queue(void)
{
    for (uint64_t k = 1; k <= JOBS; k++) {
        struct jobspec spec = random_job();
        assert_int_equal(plan_and_submit(&spec), k);
    }
    for (uint64_t k = 1; k <= JOBS; k++) {
        predicted_ms[k] = runs(k) ? w.now_ms : core_expected_start_ms(w.core, k);
        assert_true(predicted_ms[k] != TIME_NEVER);
        first_blocked = first_blocked == 0 && !runs(k) ? k : first_blocked;
    }
}

/* Those that have just started: when, beside when they were to. */
static void check_started(void)
{
    for (size_t i = 0; i < w.core->running_count; i++) {
        const struct job *job = w.core->running[i];
        uint64_t id = job->row.id;
        if (job->row.state == JOB_STARTING) {
            start_all(id);
        }
        if (!is_checked[id]) {
            is_checked[id] = true;
            exact += job->row.started_ms == predicted_ms[id];
            later += job->row.started_ms > predicted_ms[id];
            if (id == first_blocked) {
                assert_true(job->row.started_ms <= predicted_ms[id] + GANG_ENDS_MS);
            }
        }
    }
}

static const struct job *first_to_end(int64_t *end_ms)
{
    const struct job *first = NULL;
    for (size_t i = 0; i < w.core->running_count; i++) {
        const struct job *job = w.core->running[i];
        int64_t at_ms =
            job->attempt->row.started_ms + job->row.time_limit_ms + w.core->config.stop_grace_ms;
        if (first == NULL || at_ms < *end_ms) {
            first = job;
            *end_ms = at_ms;
        }
    }
    return first;
}

static void test_prediction(void **state)
{
    (void)state;
    random_start("test_prediction");
    exact = later = 0;
    for (int round = 0; round < ROUNDS; round++) {
        begin_round();
        fill_queue();
        int64_t end_ms = 0;
        const struct job *job;
        check_started();
        while ((job = first_to_end(&end_ms)) != NULL) {
            uint64_t id = job->row.id;
            pass_time(end_ms - w.now_ms);
            end_all(id, 0);
            w.ledger_count = 0; /* it has room for a few jobs */
            check_started();
        }
        for (uint64_t k = 1; k <= JOBS; k++) {
            assert_true(is_checked[k]);
        }
        assert_null(core_check(w.core));
    }
    printf("%u of %u started when predicted, %u later\n", exact, ROUNDS * JOBS, later);
    assert_true(exact > ROUNDS * JOBS * 3 / 4 && later < ROUNDS * JOBS / 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prediction, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
