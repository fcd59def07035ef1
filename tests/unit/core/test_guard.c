#include "tests/unit/core/world.h"

#include "daemon/core/guard.h"
#include "daemon/core/quarantine.h"

static struct world w;
static struct lost_work_row lost[16];
static size_t lost_count;
static char last_text[1200]; /* of the last event */

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    lost_count = 0;
    world_register(&w, 1, "n1", 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static void step(struct input *in)
{
    in->now_ms = w.now_ms;
    core_step(w.core, in);
    assert_null(core_check(w.core));
    const struct change_list *list = core_changes(w.core, TABLE_LOST_WORK);
    for (size_t i = 0; i < change_count(list); i++) {
        lost[lost_count++] = *(struct lost_work_row *)change_row(list, i);
    }
    const struct change_list *events = core_changes(w.core, TABLE_EVENT);
    for (size_t i = 0; i < change_count(events); i++) {
        snprintf(last_text, sizeof last_text, "%s",
                 ((struct event_row *)change_row(events, i))->text);
    }
    world_collect(&w);
    effect_list_fini(&w.effects);
    w.effects = w.core->effects;
    w.core->effects = (struct effect_list){0};
    core_committed(w.core);
}

static struct input_guard decision(uint64_t job, uint64_t epoch, const char *action, uint64_t at)
{
    return (struct input_guard){.job = job,
                                .epoch = epoch,
                                .decided = epoch,
                                .action = action,
                                .text = "what happened",
                                .step = at,
                                .back_to = at};
}

static int report(session_id session, struct input_guard guard)
{
    struct input in = {.kind = INPUT_GUARD_REPORT, .token = ++w.token, .session = session};
    in.u.guard = guard;
    step(&in);
    return world_code(&w);
}

static int went_back(uint64_t job, uint64_t epoch, uint64_t at, uint64_t back_to)
{
    struct input_guard guard = decision(job, epoch, "rollback", at);
    guard.back_to = back_to;
    return report(1, guard);
}

static size_t count_events(const char *kind)
{
    size_t count = 0;
    for (size_t i = 0; i < w.kind_count; i++) {
        count += strcmp(w.kinds[i], kind) == 0;
    }
    return count;
}

static uint64_t start(uint32_t rollback, uint32_t keep)
{
    struct jobspec spec = world_spec(1, 2);
    spec.train.guard.enabled = rollback > 0;
    spec.train.guard.rollback = rollback;
    spec.checkpoint.keep = keep;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    world_start(&w, 1, job, 1);
    return job;
}

/* A step is made and saved. */
static void save(uint64_t job, uint64_t epoch, uint64_t at)
{
    w.now_ms += 1000;
    world_heartbeat(&w, 1);
    assert_int_equal(world_steps(&w, 1, job, epoch, at, 0, 0), 0);
    assert_int_equal(world_shard(&w, 1, job, epoch, at, 2, 0), 0);
    assert_int_equal(world_shard(&w, 1, job, epoch, at, 2, 1), 0);
}

/* Both ranks exit so; the job is looked at before it may leave memory. */
static void both_exit(uint64_t job, uint64_t epoch, int code)
{
    struct input_exit exits[2] = {world_exit(&w, 0, code), world_exit(&w, 1, code)};
    world_report(&w, 1, job, epoch, 3, exits, 2);
}

/* A decision is one event, however often it is told, also by the attempts after. */
static void test_once(void **state)
{
    (void)state;
    uint64_t job = start(10, 3);
    save(job, 1, 10);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(report(1, decision(job, 1, "replay", 12)), 0);
    }
    assert_int_equal(count_events("guard.replay"), 1);
    both_exit(job, 1, 75);
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    world_start(&w, 1, job, 2);
    struct input_guard again = decision(job, 2, "replay", 12);
    again.decided = 1;
    assert_int_equal(report(1, again), 0);
    struct input_guard skip = decision(job, 2, "skip", 10);
    skip.decided = 1;
    assert_int_equal(report(1, skip), 0);
    assert_int_equal(report(1, skip), 0);
    assert_int_equal(count_events("guard.replay"), 1);
    assert_int_equal(count_events("guard.skip"), 1);
    /* one that did not arrive in time is told by the next attempt */
    assert_int_equal(report(1, decision(job, 2, "corrupt", 12)), 0);
    assert_int_equal(count_events("guard.corrupt"), 1);
}

/* Going back gives up what lies behind, and nothing else; the next attempt resumes before it, and
 * the time since is lost. */
static void test_rollback(void **state)
{
    (void)state;
    uint64_t job = start(10, 3);
    save(job, 1, 10);
    int64_t kept_ms = w.now_ms;
    save(job, 1, 20);
    save(job, 1, 30);
    w.now_ms += 1000;
    /* of the next one a shard is there */
    assert_int_equal(world_shard(&w, 1, job, 1, 40, 2, 0), 0);
    assert_int_equal(went_back(job, 1, 42, 10), 0);
    struct job *j = world_job(&w, job);
    assert_int_equal(core_ckpt(w.core, j->row.ckpt_id)->row.step, 10);
    assert_int_equal(world_shard(&w, 1, job, 1, 40, 2, 1), 0); /* and the other one */
    assert_int_equal(core_ckpt(w.core, j->row.ckpt_id)->row.step, 10);
    assert_int_equal(lost_count, 1);
    assert_true(lost[0].job_id == job && lost[0].epoch == 1);
    assert_true(lost[0].from_ms == kept_ms && lost[0].to_ms == w.now_ms);
    both_exit(job, 1, 75);
    assert_int_equal(j->row.epoch, 2);
    assert_int_equal(j->attempt->row.resume_step, 10);
    assert_int_equal(world_booked(&w, 0, CATEGORY_LOST_PROGRESS, job), 2 * (w.now_ms - kept_ms));
    assert_int_equal(j->row.fruitless, 0);
    /* what was given up stays until something newer is there */
    world_start(&w, 1, job, 2);
    size_t given_up = 0;
    for (size_t i = 0; i < j->ckpt_count; i++) {
        given_up += j->ckpts[i]->row.given_up && j->ckpts[i]->row.state == CKPT_COMMITTED;
    }
    assert_int_equal(given_up, 3);
    save(job, 2, 20);
    for (size_t i = 0; i < j->ckpt_count; i++) {
        assert_true(!j->ckpts[i]->row.given_up || j->ckpts[i]->row.state == CKPT_DELETED);
    }
    assert_int_equal(core_ckpt(w.core, j->row.ckpt_id)->row.epoch, 2);
}

/* Nothing that old is there: from the beginning. */
static void test_rollback_to_the_beginning(void **state)
{
    (void)state;
    uint64_t job = start(10, 3);
    save(job, 1, 10);
    assert_int_equal(went_back(job, 1, 12, 0), 0);
    struct job *j = world_job(&w, job);
    assert_int_equal(j->row.ckpt_id, 0);
    assert_int_equal(lost[0].from_ms, j->row.submitted_ms);
    both_exit(job, 1, 75);
    assert_int_equal(j->attempt->row.resume_ckpt_id, 0);
}

/* The decision arrives with the next attempt, which had been told to resume from what it gave up.
 */
static void test_late(void **state)
{
    (void)state;
    uint64_t job = start(10, 3);
    save(job, 1, 10);
    save(job, 1, 20);
    both_exit(job, 1, -1);
    struct job *j = world_job(&w, job);
    world_start(&w, 1, job, 2);
    assert_int_equal(j->attempt->row.resume_step, 20);
    struct input_guard late = decision(job, 2, "rollback", 22);
    late.decided = 1;
    late.back_to = 10;
    assert_int_equal(report(1, late), 0);
    assert_int_equal(j->attempt->row.resume_step, 10);
    assert_null(j->attempt->row.guard);
    assert_int_equal(count_events("guard.rollback"), 1);
}

/* The ladder's restarts cost no budget and wait for nothing; its end holds the job, and a release
 * goes on. Corruption costs. */
static void test_verdicts(void **state)
{
    (void)state;
    struct jobspec spec = world_spec(1, 2);
    spec.restart_max = 1;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    struct job *j = world_job(&w, job);
    static const char *const rungs[] = {"replay", "rollback", "lower", "replay", "rollback"};
    uint64_t epoch = 1;
    for (; epoch <= 5; epoch++) {
        world_start(&w, 1, job, epoch);
        struct input_guard guard = decision(job, epoch, rungs[epoch - 1], 50);
        guard.back_to = 0;
        assert_int_equal(report(1, guard), 0);
        both_exit(job, epoch, 75);
        assert_int_equal(j->row.state, JOB_STARTING);
        assert_int_equal(j->row.fruitless, 0);
    }
    world_start(&w, 1, job, epoch);
    assert_int_equal(report(1, decision(job, epoch, "hold", 50)), 0);
    both_exit(job, epoch, 82);
    assert_int_equal(j->row.state, JOB_HELD);
    assert_string_equal(j->row.exit_class, "numeric");
    assert_non_null(strstr(j->row.reason_text, "what happened"));
    assert_non_null(strstr(j->row.reason_text, "dsctl job show"));
    assert_int_equal(world_order(&w, INPUT_JOB_RELEASE, job), 0);
    assert_int_equal(j->row.state, JOB_STARTING);
    epoch++;
    world_start(&w, 1, job, epoch);
    assert_int_equal(report(1, decision(job, epoch, "corrupt", 50)), 0);
    both_exit(job, epoch, 81);
    assert_int_equal(j->row.fruitless, 1);
    assert_string_equal(j->row.exit_class, "silent_corruption");
}

/* With every interval and any number to keep, a checkpoint that is old enough to go back to is
 * there as soon as one was made, twice over, and at most four more than asked for stay. */
static void test_retention(void **state)
{
    (void)state;
    srand(7);
    for (int round = 0; round < 30; round++) {
        uint32_t rollback = 1 + (uint32_t)rand() % 50;
        uint32_t keep = 1 + (uint32_t)rand() % 4;
        uint32_t spread = 1 + (uint32_t)rand() % 40;
        uint64_t job = start(rollback, keep);
        struct job *j = world_job(&w, job);
        uint64_t first = 0, at = 0;
        for (int n = 0; n < 40; n++) {
            at += 1 + (uint64_t)rand() % spread;
            first = first == 0 ? at : first;
            save(job, 1, at);
            uint64_t oldest = UINT64_MAX, good = 0;
            for (size_t i = 0; i < j->ckpt_count; i++) {
                bool is_good = ckpt_is_good(j->ckpts[i]);
                good += is_good;
                oldest = is_good && (uint64_t)j->ckpts[i]->row.step < oldest
                             ? (uint64_t)j->ckpts[i]->row.step
                             : oldest;
            }
            assert_true(good <= keep + CKPT_FOR_GUARD_MAX);
            assert_true(oldest + 2 * rollback <= at || first + 2 * rollback > at);
        }
        world_order(&w, INPUT_JOB_CANCEL, job);
        both_exit(job, 1, 0);
    }
}

/* The one rank that differs takes its node out of service; one node of a small cluster at most. */
static void test_the_odd_node(void **state)
{
    (void)state;
    world_register(&w, 2, "n2", 2);
    world_register(&w, 3, "n3", 2);
    uint64_t job = world_submit(&w, 3, 2);
    for (session_id s = 1; s <= 3; s++) {
        world_start(&w, s, job, 1);
    }
    struct input_guard guard = decision(job, 1, "corrupt", 100);
    guard.has_odd_rank = true;
    guard.odd_rank = 3; /* on n2 */
    assert_int_equal(report(1, guard), 0);
    assert_string_equal(core_node_by_name(w.core, "n2")->row.by_user, QUARANTINE_USER);
    assert_non_null(strstr(core_node_by_name(w.core, "n2")->row.reason, "rank 3"));
    assert_int_equal(core_node_by_name(w.core, "n2")->row.state, NODE_DRAINING);
    for (session_id s = 1; s <= 3; s++) {
        struct input_exit exits[2] = {world_exit(&w, (uint32_t)(2 * s - 2), 81),
                                      world_exit(&w, (uint32_t)(2 * s - 1), 81)};
        world_report(&w, s, job, 1, 3, exits, 2);
    }
    assert_int_equal(core_node_by_name(w.core, "n2")->row.state, NODE_DRAINED);
    assert_int_equal(world_job(&w, job)->row.state, JOB_PENDING); /* there is no third one */
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n2"), 0);
    world_run_to(&w, w.now_ms + 3600);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STARTING);
    /* another one is told, and not taken as well */
    quarantine_suspect(w.core, core_node_by_name(w.core, "n1"), "a reason");
    quarantine_suspect(w.core, core_node_by_name(w.core, "n3"), "a reason");
    assert_null(core_node_by_name(w.core, "n3")->row.by_user);
    step(&(struct input){.kind = INPUT_TICK});
    assert_int_equal(count_events("node.quarantined"), 2);
    assert_int_equal(count_events("node.suspect"), 1);
}

/* Processes that survive KILL: the job goes on elsewhere, the node is fenced, then drained. */
static void test_stuck(void **state)
{
    (void)state;
    uint64_t job = world_submit(&w, 1, 2);
    world_start(&w, 1, job, 1);
    world_register(&w, 2, "n2", 2);
    struct input_exit exits[1] = {world_exit(&w, 0, 75)};
    world_report(&w, 1, job, 1, 2, exits, 1);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STOPPING);
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .token = ++w.token, .session = 1};
    in.u.attempt = (struct input_attempt_report){.job = job,
                                                 .epoch = 1,
                                                 .phase = 2,
                                                 .exits = exits,
                                                 .exit_count = 1,
                                                 .stuck = "process 77 (dstrain) survives KILL"};
    step(&in);
    struct node *node = core_node_by_name(w.core, "n1");
    assert_int_equal(node->row.state, NODE_FENCING);
    assert_string_equal(node->row.by_user, QUARANTINE_USER);
    assert_non_null(strstr(node->row.reason, "process 77 (dstrain) survives KILL"));
    assert_int_equal(world_job(&w, job)->row.state, JOB_STARTING);
    assert_int_equal(world_job(&w, job)->attempt->nodes[0].node->row.id, 2);
    step(&in); /* told again */
    assert_int_equal(count_events("node.quarantined"), 1);
    world_report(&w, 1, job, 1, 3, exits, 1);
    assert_int_equal(node->row.state, NODE_DRAINED);
    assert_int_equal(world_node_order(&w, INPUT_NODE_RESUME, "n1"), 0);
    assert_int_equal(node->row.state, NODE_UP);
}

/* What makes no sense is refused, and old epochs have nothing to say. */
static void test_refused(void **state)
{
    (void)state;
    uint64_t job = start(10, 3);
    struct input_guard guard = decision(job, 1, "dance", 5);
    assert_int_equal(report(1, guard), ERR_INVALID);
    guard = decision(job, 1, "replay", 5);
    guard.decided = 2;
    assert_int_equal(report(1, guard), ERR_INVALID);
    guard = decision(job, 1, "rollback", 5);
    guard.back_to = 6;
    assert_int_equal(report(1, guard), ERR_INVALID);
    assert_int_equal(report(1, decision(job, 7, "replay", 5)), ERR_STALE);
    assert_int_equal(report(1, decision(job + 1, 1, "replay", 5)), ERR_STALE);
    assert_int_equal(count_events("guard.replay"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback_to_the_beginning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verdicts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_odd_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stuck, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
