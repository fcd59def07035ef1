/* Arrays, dependencies, times, suspend and resume. */
#include "tests/unit/core/world.h"

#include "daemon/core/job_wait.h"

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

static enum job_state state_of(uint64_t id)
{
    return world_job(&w, id)->row.state;
}

static uint64_t submit_after(enum dependency_kind kind, uint64_t other)
{
    struct jobspec spec = world_spec(1, 1);
    struct dependency need = {kind, other};
    spec.dependencies = &need;
    spec.dependency_count = 1;
    return world_submit_spec(&w, &spec, NULL, "h");
}

static void end(uint64_t id, int32_t code)
{
    struct job *job = world_job(&w, id);
    world_report_exit(&w, 1, id, (uint64_t)job->row.epoch, 3, world_exit(&w, 0, code));
}

static void assert_why(uint64_t id, const char *code, const char *part)
{
    char got[32], text[1024];
    assert_true(core_why(w.core, id, got, sizeof got, text, sizeof text));
    if (strcmp(got, code) != 0 || strstr(text, part) == NULL) {
        fail_msg("%s: %s", got, text);
    }
}

/* Each kind is met by what it names, and held when that can no longer be; a release runs it anyway.
 */
static void test_dependencies(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 8);
    uint64_t other = submit_after(DEPENDENCY_AFTER_OK, 0);
    assert_int_equal(other, 0); /* there is no such job */
    struct jobspec spec = world_spec(1, 1);
    spec.hold = true;
    other = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(state_of(other), JOB_HELD);
    uint64_t after = submit_after(DEPENDENCY_AFTER, other);
    uint64_t any = submit_after(DEPENDENCY_AFTER_ANY, other);
    uint64_t ok = submit_after(DEPENDENCY_AFTER_OK, other);
    uint64_t not_ok = submit_after(DEPENDENCY_AFTER_NOT_OK, other);
    assert_why(ok, "dependency", "waits until job 1 (j) has completed, which is HELD");
    world_order(&w, INPUT_JOB_RELEASE, other);
    assert_int_equal(state_of(after), JOB_STARTING);
    assert_int_equal(state_of(any), JOB_PENDING);
    end(after, 0); /* it leaves memory before the one that it waited for */
    end(other, 64);
    assert_int_equal(state_of(any), JOB_STARTING);
    assert_int_equal(state_of(not_ok), JOB_STARTING);
    assert_int_equal(state_of(ok), JOB_HELD);
    assert_why(ok, "dependency", "it was to wait for job 1 to complete, which did not happen");
    world_order(&w, INPUT_JOB_RELEASE, ok);
    assert_int_equal(state_of(ok), JOB_STARTING);
    assert_int_equal(state_of(submit_after(DEPENDENCY_AFTER_OK, other)), JOB_HELD);
    assert_int_equal(state_of(submit_after(DEPENDENCY_AFTER_NOT_OK, other)), JOB_STARTING);
}

/* Jobs of one name and user run one after the other, in the order of submission. */
static void test_singleton(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 8);
    struct jobspec spec = world_spec(1, 1);
    spec.singleton = true;
    uint64_t a = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t b = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t c = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(state_of(a), JOB_STARTING);
    world_order(&w, INPUT_JOB_CANCEL, b);
    assert_int_equal(state_of(c), JOB_PENDING);
    end(a, 0);
    assert_int_equal(state_of(c), JOB_STARTING);
}

/* A singleton array runs its jobs one at a time; what is a singleton of the same name waits for the
 * whole of it, and it for what was there before. */
static void test_singleton_array(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 8);
    uint32_t indices[] = {0, 1, 2};
    struct jobspec one = world_spec(1, 1), many = world_spec(1, 1);
    one.singleton = many.singleton = true;
    many.array = indices;
    many.array_count = 3;
    uint64_t before = world_submit_spec(&w, &one, NULL, "h");
    uint64_t first = world_submit_spec(&w, &many, NULL, "h");
    uint64_t after = world_submit_spec(&w, &one, NULL, "h");
    assert_int_equal(state_of(before), JOB_STARTING);
    assert_int_equal(state_of(first), JOB_PENDING);
    end(before, 0);
    for (uint64_t job = first; job < first + 3; job++) {
        assert_int_equal(state_of(job), JOB_STARTING);
        for (uint64_t later = job + 1; later <= after; later++) {
            assert_int_equal(state_of(later), JOB_PENDING);
        }
        end(job, 0);
    }
    assert_int_equal(state_of(after), JOB_STARTING);
}

/* What depends on one job of an array that is not its first waits for that job alone. */
static void test_one_of_array(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 8);
    uint32_t indices[] = {0, 1, 2};
    struct jobspec spec = world_spec(1, 1);
    spec.array = indices;
    spec.array_count = 3;
    uint64_t first = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t then = submit_after(DEPENDENCY_AFTER_OK, first + 1);
    assert_int_equal(state_of(then), JOB_PENDING);
    end(first + 1, 0);
    assert_int_equal(state_of(then), JOB_STARTING);
    assert_int_equal(state_of(first + 2), JOB_STARTING);
}

/* An array is as many jobs with ids in a row, so many at a time; what depends on its first job
 * waits for all of them. */
static void test_array(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 8);
    uint32_t indices[] = {3, 5, 7, 9};
    struct jobspec spec = world_spec(1, 1);
    spec.array = indices;
    spec.array_count = 4;
    spec.array_limit = 2;
    uint64_t first = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(first, 1);
    assert_int_equal(world_job(&w, 4)->row.array_index, 9);
    assert_int_equal(state_of(1), JOB_STARTING);
    assert_int_equal(state_of(2), JOB_STARTING);
    assert_why(3, "array_limit", "its array runs 2 jobs at a time, and 2 do");
    uint64_t started = submit_after(DEPENDENCY_AFTER, first);
    uint64_t ok = submit_after(DEPENDENCY_AFTER_OK, first);
    end(1, 0);
    assert_int_equal(state_of(3), JOB_STARTING);
    struct input in = {.kind = INPUT_JOB_UPDATE, .token = ++w.token};
    in.u.update = (struct input_job_update){
        .job = 4, .user = "u", .fields = JOB_FIELD_ARRAY_LIMIT, .array_limit = 0};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
    assert_int_equal(state_of(4), JOB_STARTING);
    assert_int_equal(state_of(started), JOB_STARTING);
    end(2, 0);
    end(3, 0);
    assert_int_equal(state_of(ok), JOB_PENDING);
    end(4, 0);
    assert_int_equal(state_of(ok), JOB_STARTING);
    assert_int_equal(state_of(submit_after(DEPENDENCY_AFTER_OK, first)), JOB_STARTING);
}

/* Not before its time; failed when its deadline can no longer be met, and stopped when it comes. */
static void test_times(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    struct jobspec spec = world_spec(1, 1);
    spec.not_before.in_ms = 10000;
    uint64_t later = world_submit_spec(&w, &spec, NULL, "h");
    assert_why(later, "not_before", "is not to start before 1970-01-01T00:16:50Z");
    world_heartbeat(&w, 1);
    world_run_to(&w, T0 + 10000);
    assert_int_equal(state_of(later), JOB_STARTING);
    spec = world_spec(1, 1);
    spec.deadline.at_ms = T0 + 60000;
    spec.time_limit_ms = 70000;
    assert_int_equal(world_submit_spec(&w, &spec, NULL, "h"), 0);
    assert_non_null(
        strstr(world_effect(&w, EFFECT_REPLY, 0)->u.reply.text, "can never be done by then"));
    spec.time_limit_ms = 35000;
    uint64_t missed = world_submit_spec(&w, &spec, NULL, "h");
    world_heartbeat(&w, 1);
    world_run_to(&w, T0 + 25000);
    assert_int_equal(state_of(missed), JOB_PENDING);
    world_run_to(&w, T0 + 25001);
    assert_null(world_job(&w, missed));
    assert_int_equal(job_outcome(w.core, missed), OUTCOME_FAILED);
    end(later, 0);
    spec.time_limit_ms = 0;
    uint64_t runs = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(state_of(runs), JOB_STARTING);
    world_heartbeat(&w, 1);
    world_run_to(&w, T0 + 50000);
    world_heartbeat(&w, 1);
    world_run_to(&w, T0 + 60000);
    assert_int_equal(state_of(runs), JOB_STOPPING);
    end(runs, 80);
    assert_null(world_job(&w, runs));
}

/* Suspend saves and lets go of the nodes; resume goes on from there, at no cost to the budget. */
static void test_suspend(void **state)
{
    (void)state;
    world_register(&w, 1, "n1", 1);
    uint64_t job = world_submit(&w, 1, 1);
    world_start(&w, 1, job, 1);
    assert_int_equal(world_order(&w, INPUT_JOB_SUSPEND, job), 0);
    assert_int_equal(state_of(job), JOB_STOPPING);
    assert_int_equal(world_effect(&w, EFFECT_ATTEMPT_STOP, 0)->u.stop.grace_ms, 300000);
    world_steps(&w, 1, job, 1, 5, 0, 0);
    world_shard(&w, 1, job, 1, 5, 1, 0);
    end(job, 80);
    assert_int_equal(state_of(job), JOB_SUSPENDED);
    assert_why(job, "suspended", "suspended until somebody resumes it (dsctl job resume 1)");
    uint64_t other = world_submit(&w, 1, 1);
    assert_int_equal(state_of(other), JOB_STARTING);
    assert_int_equal(world_order(&w, INPUT_JOB_RESUME, job), 0);
    assert_int_equal(state_of(job), JOB_PENDING);
    assert_int_equal(world_order(&w, INPUT_JOB_RESUME, job), ERR_CONFLICT);
    end(other, 0);
    assert_int_equal(state_of(job), JOB_STARTING);
    assert_int_equal(world_job(&w, job)->attempt->row.resume_step, 5);
    assert_int_equal(world_job(&w, job)->row.restarts, 0);
    assert_int_equal(world_order(&w, INPUT_JOB_REQUEUE, job), 0);
    assert_int_equal(world_order(&w, INPUT_JOB_SUSPEND, job), 0); /* the newest wish counts */
    assert_int_equal(world_order(&w, INPUT_JOB_CANCEL, job), 0);  /* and a cancel wins */
    end(job, 80);
    assert_null(world_job(&w, job));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_dependencies), TEST(test_singleton), TEST(test_singleton_array),
        TEST(test_one_of_array), TEST(test_array),     TEST(test_times),
        TEST(test_suspend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
