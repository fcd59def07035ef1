#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/agent.h"

/* What the agent handed out since the last look, as one letter each, in order: P L S E (record the
 * end) R X (remove), a (success) and e (error). Ends are recorded at once. */
static char seen[256];
static struct agent_action last[256]; /* by the letter, the newest */

static const char *acts(struct agent *agent)
{
    size_t n = 0;
    struct agent_action action;
    memset(last, 0, sizeof last);
    while (agent_next(agent, &action)) {
        char letter = "PLSERX"[action.act < AGENT_ANSWER ? action.act : 0];
        if (action.act == AGENT_ANSWER) {
            letter = action.code == 0 ? 'a' : 'e';
        }
        if (action.act == AGENT_RECORD) {
            assert_int_not_equal(agent_phase(action.attempt), 3);
            agent_recorded(agent, action.attempt);
        }
        seen[n++] = letter;
        last[(unsigned char)letter] = action;
    }
    seen[n] = 0;
    return seen;
}

static void register_now(struct agent *agent)
{
    agent_registering(agent);
    agent_registered(agent);
}

static void started(struct agent *agent, struct agent_attempt *a)
{
    agent_shim(agent, a, &(struct agent_shim_word){.started = true, .started_at_ms = 5});
}

static void ended(struct agent *agent, struct agent_attempt *a)
{
    agent_shim(agent, a,
               &(struct agent_shim_word){.started = true, .ended = true, .ended_at_ms = 9});
}

/* An attempt of two ranks, 4 and 5, that runs. */
static struct agent_attempt *running(struct agent *agent, uint64_t job, uint64_t epoch)
{
    struct agent_attempt *a = agent_order_start(agent, 1, job, epoch, 4, 2);
    agent_persisted(agent, a, 0, "");
    acts(agent);
    started(agent, a);
    return a;
}

/* An order is answered, told and launched only after it is durable; then each stage is told once.
 */
static void test_normal_life(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = agent_order_start(agent, 7, 12, 1, 4, 2);
    assert_string_equal(acts(agent), "P");
    assert_int_equal(agent_phase(a), 0);
    agent_persisted(agent, a, 0, "");
    assert_string_equal(acts(agent), "aRL");
    assert_int_equal(last['a'].token, 7);
    assert_int_equal(agent_phase(a), 1);
    agent_acked(agent, a, last['R'].version);
    started(agent, a);
    assert_string_equal(acts(agent), "R");
    assert_int_equal(agent_phase(a), 2);
    agent_acked(agent, a, last['R'].version);
    assert_true(agent_shim_exit(a, 4, 0, 0, 8, NULL));
    assert_true(agent_shim_exit(a, 5, 1, 0, 8, "oops"));
    assert_false(agent_shim_exit(a, 5, 0, 0, 9, NULL));
    assert_false(agent_shim_exit(a, 6, 0, 0, 9, NULL));
    ended(agent, a);
    assert_string_equal(acts(agent), "R");
    assert_int_equal(agent_phase(a), 3);
    assert_int_equal(a->exits[1].code, 1);
    assert_string_equal(a->exits[1].last_words, "oops");
    agent_acked(agent, a, last['R'].version);
    ended(agent, a); /* the shim says it again */
    assert_string_equal(acts(agent), "");
    agent_order_forget(agent, 8, 12, 1);
    assert_string_equal(acts(agent), "Xa");
    agent_removed(agent, a);
    assert_int_equal(agent_count(agent), 0);
    agent_destroy(agent);
}

/* Only one report is under way; what changes meanwhile is told in one next report. */
static void test_reports_are_merged(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = agent_order_start(agent, 7, 12, 1, 4, 2);
    agent_persisted(agent, a, 0, "");
    acts(agent);
    uint64_t first = last['R'].version;
    started(agent, a);
    agent_shim_exit(a, 4, 0, 0, 8, NULL);
    agent_shim_exit(a, 5, 0, 0, 8, NULL);
    ended(agent, a);
    assert_string_equal(acts(agent), "");
    agent_acked(agent, a, first);
    assert_string_equal(acts(agent), "R");
    agent_acked(agent, a, first); /* a late copy */
    assert_string_equal(acts(agent), "");
    agent_acked(agent, a, last['R'].version);
    assert_string_equal(acts(agent), "");
    agent_destroy(agent);
}

/* While the link is down nothing is sent; the registration says it all, and only what changed after
 * it is told again. */
static void test_link_lost(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = running(agent, 12, 1);
    agent_link_lost(agent);
    agent_shim_exit(a, 4, 0, 0, 8, NULL);
    agent_shim_exit(a, 5, 0, 0, 8, NULL);
    ended(agent, a);
    assert_string_equal(acts(agent), "");
    agent_registering(agent);
    assert_int_equal(agent_phase(a), 3);
    agent_registered(agent);
    assert_string_equal(acts(agent), "");
    agent_link_lost(agent);

    struct agent_attempt *b = running(agent, 13, 1);
    agent_registering(agent);
    agent_shim_exit(b, 4, 0, 0, 8, NULL);
    ended(agent, b); /* between the registration and its answer */
    assert_string_equal(acts(agent), "");
    agent_registered(agent);
    assert_string_equal(acts(agent), "R");
    agent_destroy(agent);
}

/* The exit of a rank, and the end, are told only after everything that the rank has said was
 * acknowledged. */
static void test_exit_waits_for_reports(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = running(agent, 12, 1);
    acts(agent);
    agent_acked(agent, a, a->sent);
    acts(agent);
    agent_acked(agent, a, a->sent);
    agent_rank_busy(agent, a, 5, +1); /* connected */
    agent_rank_busy(agent, a, 5, +1); /* a report under way */
    agent_shim_exit(a, 4, 0, 0, 8, NULL);
    agent_shim_exit(a, 5, 0, 0, 8, NULL);
    ended(agent, a);
    assert_string_equal(acts(agent), "R");
    assert_int_equal(agent_phase(a), 2);
    assert_true(agent_exit_is_told(a, 0));
    assert_false(agent_exit_is_told(a, 1));
    agent_acked(agent, a, last['R'].version);
    agent_rank_busy(agent, a, 5, -1);
    assert_string_equal(acts(agent), "");
    agent_rank_busy(agent, a, 5, -1);
    assert_string_equal(acts(agent), "R");
    assert_int_equal(agent_phase(a), 3);
    assert_true(agent_exit_is_told(a, 1));
    agent_destroy(agent);
}

/* A newer epoch kills the older one and waits until it is gone; an epoch older than what is here is
 * refused. */
static void test_newer_epoch(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *old = running(agent, 12, 3);
    struct agent_attempt *new = agent_order_start(agent, 2, 12, 4, 4, 2);
    assert_string_equal(acts(agent), "SP");
    assert_ptr_equal(last['S'].attempt, old);
    assert_int_equal(old->stop_grace_ms, 0);
    agent_persisted(agent, new, 0, "");
    assert_string_equal(acts(agent), "a");
    assert_int_equal(new->stage, AGENT_WAITING);
    assert_null(agent_order_start(agent, 3, 12, 2, 4, 2));
    assert_string_equal(acts(agent), "e");
    assert_int_equal(last['e'].code, ERR_STALE);
    ended(agent, old);
    assert_string_equal(acts(agent), "L");
    assert_ptr_equal(last['L'].attempt, new);
    /* another job is none of its business */
    assert_non_null(agent_order_start(agent, 4, 13, 1, 0, 1));
    assert_string_equal(acts(agent), "P");
    agent_destroy(agent);
}

/* The same start again changes nothing and is answered; before the first is durable, only the later
 * one is answered with its outcome. */
static void test_repeated_start(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *a = agent_order_start(agent, 1, 12, 1, 0, 1);
    assert_null(agent_order_start(agent, 2, 12, 1, 0, 1));
    assert_string_equal(acts(agent), "Pe");
    assert_int_equal(last['e'].token, 1);
    agent_persisted(agent, a, 0, "");
    assert_string_equal(acts(agent), "aL");
    assert_int_equal(last['a'].token, 2);
    assert_null(agent_order_start(agent, 3, 12, 1, 0, 1));
    assert_string_equal(acts(agent), "a");
    assert_int_equal(agent_count(agent), 1);
    agent_destroy(agent);
}

/* An order that could not be written is answered with why, and its end is told with that text and
 * no exits. */
static void test_not_persisted(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = agent_order_start(agent, 1, 12, 1, 0, 1);
    agent_persisted(agent, a, ERR_NOSPACE, "disk full");
    assert_string_equal(acts(agent), "PeR");
    assert_int_equal(last['e'].code, ERR_NOSPACE);
    assert_int_equal(agent_phase(a), 3);
    assert_string_equal(a->error, "disk full");
    assert_false(agent_exit_is_told(a, 0));
    agent_destroy(agent);
}

/* What cannot be launched ends with the reason and without exits, also when the shim had collected
 * some. */
static void test_not_launched(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = agent_order_start(agent, 1, 12, 1, 0, 2);
    agent_persisted(agent, a, 0, "");
    agent_launch_failed(agent, a, "no such program", 3);
    assert_string_equal(acts(agent), "PaRLE");
    assert_int_equal(agent_phase(a), 3);
    assert_string_equal(a->error, "no such program");
    struct agent_attempt *b = agent_order_start(agent, 1, 13, 1, 0, 2);
    agent_persisted(agent, b, 0, "");
    agent_shim_exit(b, 0, -1, 9, 3, NULL);
    agent_shim(agent, b,
               &(struct agent_shim_word){
                   .ended = true, .ended_at_ms = 4, .error = "rank 1: no such program"});
    assert_int_equal(agent_phase(b), 3);
    assert_string_equal(b->error, "rank 1: no such program");
    assert_false(agent_exit_is_told(b, 0));
    agent_destroy(agent);
}

/* A stop before the launch means that nothing is launched; after it, the shim is told, and a
 * shorter grace counts. */
static void test_stop(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *a = agent_order_start(agent, 1, 12, 1, 0, 1);
    agent_order_stop(agent, 2, 12, 1, 1000, "cancelled");
    agent_persisted(agent, a, 0, "");
    assert_string_equal(acts(agent), "PaaE");
    assert_int_equal(agent_phase(a), 3);
    assert_null(a->error);

    struct agent_attempt *b = running(agent, 13, 1);
    agent_order_stop(agent, 2, 13, 1, 1000, "cancelled");
    assert_string_equal(acts(agent), "Sa");
    agent_order_stop(agent, 3, 13, 1, 5000, "again");
    assert_int_equal(b->stop_grace_ms, 1000);
    agent_order_stop(agent, 3, 13, 1, 10, "hurry");
    assert_int_equal(b->stop_grace_ms, 10);
    assert_string_equal(acts(agent), "SaSa");
    ended(agent, b);
    agent_order_stop(agent, 3, 13, 1, 10, "late");
    assert_string_equal(acts(agent), "a");
    agent_destroy(agent);
}

/* A stop of what was never here is answered with an end without exits, until it is forgotten. */
static void test_stop_unknown(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    agent_order_stop(agent, 5, 99, 2, 0, "gone");
    assert_string_equal(acts(agent), "Ra");
    struct agent_attempt *a = agent_find(agent, 99, 2);
    assert_int_equal(agent_phase(a), 3);
    assert_int_equal(a->rank_count, 0);
    agent_order_forget(agent, 6, 99, 2);
    assert_string_equal(acts(agent), "Xa");
    agent_removed(agent, a);
    agent_order_forget(agent, 7, 99, 2);
    assert_string_equal(acts(agent), "a");
    agent_destroy(agent);
}

/* Forgetting what still runs kills it first, and removes it when it has ended. */
static void test_forget_live(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *a = running(agent, 12, 1);
    agent_order_forget(agent, 2, 12, 1);
    assert_string_equal(acts(agent), "Sa");
    assert_int_equal(a->stop_grace_ms, 0);
    ended(agent, a);
    assert_string_equal(acts(agent), "X");
    agent_order_forget(agent, 3, 12, 1);
    assert_string_equal(acts(agent), "a");
    agent_destroy(agent);
}

/* When the shim was killed, exits it had told stay and the others are unknown: code -1, signal 9.
 */
static void test_shim_lost(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *a = agent_adopt(agent, 12, 1, 4, 3);
    assert_int_equal(agent_phase(a), 1);
    agent_shim_exit(a, 5, 0, 0, 8, NULL);
    agent_shim_lost(agent, a, "killed", 20);
    assert_int_equal(agent_phase(a), 1);
    assert_string_equal(acts(agent), "E");
    assert_int_equal(agent_phase(a), 3);
    assert_int_equal(a->exits[1].code, 0);
    assert_int_equal(a->exits[1].signal, 0);
    assert_int_equal(a->exits[0].code, -1);
    assert_int_equal(a->exits[0].signal, 9);
    assert_string_equal(a->exits[2].last_words, "killed");
    agent_shim_lost(agent, a, "again", 30);
    assert_int_equal(a->ended_at_ms, 20);
    agent_destroy(agent);
}

/* An adopted attempt that was never started is launched, unless an older one of its job is still
 * here. */
static void test_adopted_unstarted(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    struct agent_attempt *new = agent_adopt(agent, 12, 2, 0, 1);
    struct agent_attempt *old = agent_adopt(agent, 12, 1, 0, 1);
    agent_launch_adopted(agent, new);
    assert_string_equal(acts(agent), "");
    agent_shim_lost(agent, old, "killed", 20);
    assert_string_equal(acts(agent), "EL");
    assert_ptr_equal(last['L'].attempt, new);
    agent_destroy(agent);
}

/* Processes that do not die are told, with the attempt still running, and so is that they did in
 * the end. */
static void test_stuck(void **state)
{
    (void)state;
    struct agent *agent = agent_create();
    register_now(agent);
    struct agent_attempt *a = running(agent, 12, 1);
    agent_acked(agent, a, a->sent);
    acts(agent);
    agent_acked(agent, a, a->sent);
    struct agent_shim_word word = {.started = true, .started_at_ms = 5, .stuck = "pid 3 state D"};
    agent_shim(agent, a, &word);
    assert_string_equal(acts(agent), "R");
    assert_string_equal(a->stuck, "pid 3 state D");
    assert_int_equal(agent_phase(a), 2);
    agent_shim(agent, a, &word);
    agent_acked(agent, a, last['R'].version);
    assert_string_equal(acts(agent), "");
    ended(agent, a);
    assert_string_equal(acts(agent), "R");
    assert_null(a->stuck);
    agent_destroy(agent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normal_life),
        cmocka_unit_test(test_reports_are_merged),
        cmocka_unit_test(test_link_lost),
        cmocka_unit_test(test_exit_waits_for_reports),
        cmocka_unit_test(test_newer_epoch),
        cmocka_unit_test(test_repeated_start),
        cmocka_unit_test(test_not_persisted),
        cmocka_unit_test(test_not_launched),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_unknown),
        cmocka_unit_test(test_forget_live),
        cmocka_unit_test(test_shim_lost),
        cmocka_unit_test(test_adopted_unstarted),
        cmocka_unit_test(test_stuck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
