#include "tests/unit/core/world.h"

#include "daemon/core/recover.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    world_register(&w, 1, "n1", 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

/* What became of a job, read from its row as the store would get it. */
static struct outcome {
    enum job_state state;
    int64_t exit_code, exit_signal, not_before_ms;
    char class[32], reason[1100];
} last;

static void note(const struct job_row *row)
{
    last.state = row->state;
    last.exit_code = row->exit_code;
    last.exit_signal = row->exit_signal;
    last.not_before_ms = row->not_before_ms;
    snprintf(last.class, sizeof last.class, "%s", row->exit_class != NULL ? row->exit_class : "");
    snprintf(last.reason, sizeof last.reason, "%s",
             row->reason_text != NULL ? row->reason_text : "");
}

/* Both ranks of a live attempt end so, in one report; then the row is looked at before it leaves
 * memory. */
static void end_with(uint64_t job, const struct input_exit *exits, size_t count)
{
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = 1, .now_ms = w.now_ms};
    struct job *j = world_job(&w, job);
    in.u.attempt = (struct input_attempt_report){.job = job,
                                                 .epoch = (uint64_t)j->row.epoch,
                                                 .phase = 3,
                                                 .exits = exits,
                                                 .exit_count = count};
    core_step(w.core, &in);
    note(&j->row);
    world_collect(&w);
    core_committed(w.core);
    effect_list_reset(&w.core->effects);
}

static uint64_t start(bool with_ckpt, int64_t runs_ms)
{
    struct jobspec spec = world_spec(1, 2);
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    world_start(&w, 1, job, 1);
    if (with_ckpt) {
        assert_int_equal(world_shard(&w, 1, job, 1, 10, 2, 0), 0);
        assert_int_equal(world_shard(&w, 1, job, 1, 10, 2, 1), 0);
    }
    for (int64_t end_ms = w.now_ms + runs_ms; w.now_ms < end_ms;) {
        w.now_ms += 10000;
        world_heartbeat(&w, 1);
    }
    return job;
}

static void drop(uint64_t job)
{
    if (world_job(&w, job) != NULL) {
        world_order(&w, INPUT_JOB_CANCEL, job);
        struct input_exit exits[2] = {world_killed(&w, 0, 15), world_killed(&w, 1, 15)};
        if (world_job(&w, job) != NULL) {
            world_report(&w, 1, job, (uint64_t)world_job(&w, job)->row.epoch, 3, exits, 2);
        }
    }
    assert_null(world_job(&w, job));
}

/* Every exit of the contract leads where recover.h says, early and late, with and without a
 * checkpoint. */
static void test_table(void **state)
{
    (void)state;
    static const struct {
        int code, signal;
        bool ckpt, late;
        enum job_state state; /* STARTING: again, at once */
        const char *class;
    } cases[] = {
        {64, 0, true, true, JOB_FAILED, "usage"},
        {65, 0, true, true, JOB_FAILED, "data"},
        {66, 0, false, false, JOB_FAILED, "data"},
        {70, 0, true, true, JOB_FAILED, "environment"},
        {74, 0, false, false, JOB_FAILED, "environment"},
        {75, 0, false, false, JOB_STARTING, "transient"},
        {76, 0, true, true, JOB_FAILED, "environment"},
        {78, 0, true, true, JOB_FAILED, "config"},
        {80, 0, false, false, JOB_STARTING, "preempted"},
        {81, 0, false, false, JOB_STARTING, "silent_corruption"},
        {82, 0, true, true, JOB_HELD, "numeric"},
        {83, 0, false, false, JOB_STARTING, "checkpoint"},
        {84, 0, false, false, JOB_STARTING, "fenced"},
        {85, 0, false, false, JOB_STARTING, "collective"},
        {86, 0, false, false, JOB_HELD, "storage"},
        {93, 0, true, true, JOB_FAILED, "no_requeue"},
        {-1, 0, false, false, JOB_STARTING, "transient"},
        {-1, 9, false, false, JOB_STARTING, "transient"},
        {-1, 15, false, false, JOB_STARTING, "transient"},
        {1, 0, false, false, JOB_FAILED, "user_startup"},
        {1, 0, false, true, JOB_STARTING, "unknown"},
        {1, 0, true, false, JOB_STARTING, "unknown"},
        {127, 0, false, false, JOB_FAILED, "user_startup"},
        {-1, 11, false, false, JOB_FAILED, "user_startup"},
        {-1, 11, true, false, JOB_STARTING, "unknown"},
        {-1, 6, false, false, JOB_FAILED, "user_startup"},
        {-1, 4, false, true, JOB_STARTING, "unknown"},
        {-1, 7, false, false, JOB_FAILED, "user_startup"},
        {-1, 8, false, false, JOB_FAILED, "user_startup"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t job = start(cases[i].ckpt, cases[i].late ? 600000 : 0);
        struct input_exit exits[2] = {
            {.rank = 0, .code = cases[i].code, .signal = cases[i].signal, .at_ms = w.now_ms},
            {.rank = 1, .code = 85, .at_ms = w.now_ms - 5}};
        if (cases[i].code == 85) {
            exits[0].at_ms = w.now_ms - 10;
        }
        end_with(job, exits, 2);
        if (last.state != cases[i].state || strcmp(last.class, cases[i].class) != 0) {
            fail_msg("exit %d signal %d %s %s: %s %s", cases[i].code, cases[i].signal,
                     cases[i].ckpt ? "checkpoint" : "no checkpoint",
                     cases[i].late ? "late" : "early", job_state_names[last.state], last.class);
        }
        assert_int_equal(last.exit_signal, cases[i].signal != 0 ? cases[i].signal : ROW_NONE);
        assert_int_equal(last.exit_code, cases[i].code >= 0 ? cases[i].code : ROW_NONE);
        drop(job);
    }
}

/* The root cause is the first exit that is not the echo of another: not a broken collective, not a
 * rank that was stopped for it. */
static void test_root_cause(void **state)
{
    (void)state;
    uint64_t job = start(true, 1000);
    struct input_exit echo = {.rank = 0, .code = 85, .at_ms = w.now_ms - 100};
    world_report(&w, 1, job, 1, 2, &echo, 1);
    struct input_exit exits[2] = {echo,
                                  {.rank = 1, .code = -1, .signal = 9, .at_ms = w.now_ms - 50}};
    end_with(job, exits, 2);
    assert_non_null(strstr(w.requeue_text, "rank 1 on n1 was killed by signal 9 (KILL)"));
    drop(job);
    job = start(true, 1000);
    world_report(&w, 1, job, 1, 2, &(struct input_exit){.rank = 0, .code = 3, .at_ms = w.now_ms},
                 1);
    w.now_ms += 2000;
    exits[0] = (struct input_exit){.rank = 0, .code = 3, .at_ms = w.now_ms - 2000};
    exits[1] = (struct input_exit){.rank = 1, .code = -1, .signal = 15, .at_ms = w.now_ms};
    end_with(job, exits, 2);
    assert_non_null(strstr(w.requeue_text, "rank 0 on n1 exited with status 3"));
    drop(job);
    /* The clock of the node is ahead: what it says of the time is not believed. */
    job = start(true, 1000);
    exits[0] = (struct input_exit){.rank = 0, .code = 85, .at_ms = w.now_ms + 5000};
    exits[1] = (struct input_exit){.rank = 1, .code = -1, .signal = 9, .at_ms = w.now_ms + 5000};
    world_report(&w, 1, job, 1, 2, exits, 2);
    w.now_ms += 20;
    end_with(job, exits, 2);
    assert_non_null(strstr(w.requeue_text, "rank 1 on n1 was killed by signal 9 (KILL)"));
    drop(job);
    job = start(true, 1000);
    exits[0] = (struct input_exit){.rank = 0, .code = 4, .at_ms = w.now_ms};
    exits[1] = (struct input_exit){.rank = 1, .code = 5, .at_ms = w.now_ms};
    end_with(job, exits, 2);
    assert_int_equal(last.exit_code, 4); /* of two at once the lower rank */
    drop(job);
}

/* People are told which rank, how, and the last line it wrote, not cut within a character. */
static void test_last_words(void **state)
{
    (void)state;
    uint64_t job = start(false, 1000);
    char words[3000];
    size_t len = (size_t)snprintf(words, sizeof words, "Traceback:\n");
    for (; len + 42 < sizeof words; len += 2) {
        memcpy(words + len, "\xc3\xa9", 2);
    }
    snprintf(words + len, sizeof words - len, "  bad shape \xc3\xa9\n\n");
    struct input_exit exits[2] = {{.rank = 0, .code = 1, .at_ms = w.now_ms, .last_words = words},
                                  {.rank = 1, .code = 85, .at_ms = w.now_ms}};
    end_with(job, exits, 2);
    assert_int_equal(last.state, JOB_FAILED);
    assert_non_null(strstr(last.reason, "rank 0 on n1 exited with status 1: "));
    assert_non_null(strstr(last.reason, "\xc3\xa9  bad shape \xc3\xa9"));
    assert_null(strstr(last.reason, "Traceback"));
    assert_null(strchr(last.reason, '\n'));
    assert_int_equal((unsigned char)*(strstr(last.reason, "status 1: ") + strlen("status 1: ")),
                     0xc3);
}

/* Restarts without a newer checkpoint wait longer and longer, then the job has failed; one
 * checkpoint gives back the whole budget. */
static void test_budget(void **state)
{
    (void)state;
    uint64_t job = start(false, 0);
    struct input_exit exits[2] = {{.rank = 0, .code = -1, .signal = 9}, {.rank = 1, .code = 85}};
    static const int64_t delays_ms[] = {0, 10000, 20000};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            exits[0].at_ms = exits[1].at_ms = w.now_ms;
            end_with(job, exits, 2);
            if (delays_ms[i] > 0) {
                assert_int_equal(last.state, JOB_PENDING);
                assert_int_equal(last.not_before_ms, w.now_ms + delays_ms[i]);
                char code[32], text[512];
                assert_true(core_why(w.core, job, code, sizeof code, text, sizeof text));
                assert_string_equal(code, "backoff");
                world_heartbeat(&w, 1);
                world_run_to(&w, w.now_ms + delays_ms[i] - 1);
                assert_int_equal(world_job(&w, job)->row.state, JOB_PENDING);
                world_run_to(&w, w.now_ms + 1);
                world_heartbeat(&w, 1);
            }
            assert_int_equal(world_job(&w, job)->row.state, JOB_STARTING);
            world_start(&w, 1, job, (uint64_t)world_job(&w, job)->row.epoch);
        }
        if (round == 0) {
            uint64_t epoch = (uint64_t)world_job(&w, job)->row.epoch;
            world_shard(&w, 1, job, epoch, 10, 2, 0);
            world_shard(&w, 1, job, epoch, 10, 2, 1);
        }
    }
    assert_int_equal(world_job(&w, job)->row.restarts, 6);
    end_with(job, exits, 2);
    assert_int_equal(last.state, JOB_FAILED);
    assert_string_equal(last.class, "no_progress");
    assert_null(world_job(&w, job));
}

/* The back-off is bounded, and restart.max 0 means never. */
static void test_bounds(void **state)
{
    (void)state;
    struct jobspec spec = world_spec(1, 2);
    spec.restart_max = 1000;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    world_job(&w, job)->row.fruitless = 900;
    struct input_exit exits[2] = {world_killed(&w, 0, 9), world_killed(&w, 1, 9)};
    end_with(job, exits, 2);
    assert_int_equal(last.not_before_ms, w.now_ms + w.core->config.backoff_max_ms);
    drop(job);
    spec.restart_max = 0;
    job = world_submit_spec(&w, &spec, NULL, "h");
    end_with(job, exits, 2);
    assert_int_equal(last.state, JOB_FAILED);
    assert_non_null(strstr(last.reason, "restart.max is 0"));
}

/* A preempted attempt that saved is not counted; one that saved nothing is. */
static void test_preempted(void **state)
{
    (void)state;
    uint64_t job = start(true, 0);
    struct input_exit exits[2] = {world_exit(&w, 0, 80), world_exit(&w, 1, 80)};
    end_with(job, exits, 2);
    assert_int_equal(world_job(&w, job)->row.fruitless, 0);
    assert_int_equal(world_job(&w, job)->row.restarts, 1);
    world_start(&w, 1, job, 2);
    end_with(job, exits, 2);
    assert_int_equal(world_job(&w, job)->row.fruitless, 1);
}

/* An attempt that could not load its checkpoint marks it, and the next one starts from the one
 * before. */
static void test_invalid_checkpoint(void **state)
{
    (void)state;
    uint64_t job = start(true, 0);
    world_shard(&w, 1, job, 1, 20, 2, 0);
    world_shard(&w, 1, job, 1, 20, 2, 1);
    struct input_exit exits[2] = {world_killed(&w, 0, 9), world_killed(&w, 1, 9)};
    end_with(job, exits, 2);
    assert_int_equal(world_job(&w, job)->attempt->row.resume_step, 20);
    exits[0] = (struct input_exit){
        .rank = 0, .code = 83, .at_ms = w.now_ms, .last_words = "sha256 differs"};
    exits[1] = world_exit(&w, 1, 85);
    end_with(job, exits, 2);
    assert_int_equal(core_ckpt(w.core, 2)->row.state, CKPT_CORRUPT);
    assert_non_null(strstr(core_ckpt(w.core, 2)->row.reason, "sha256 differs"));
    world_run_to(&w, w.now_ms + 10000); /* the second in a row without a newer checkpoint */
    assert_int_equal(world_job(&w, job)->attempt->row.resume_step, 10);
    assert_int_equal(world_job(&w, job)->row.epoch, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_root_cause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_preempted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_invalid_checkpoint, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/recover", tests, NULL, NULL);
}
