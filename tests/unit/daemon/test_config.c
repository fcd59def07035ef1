#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config.h"

static int parse(struct config *c, const char *yaml, const struct config_flags *flags,
                 struct err *err)
{
    static const struct config_flags none;
    return config_parse(c, yaml, strlen(yaml), "dsd.yaml", "/etc/ds", flags != NULL ? flags : &none,
                        err);
}

/* An empty file, and one with only comments, give the documented defaults. */
static void test_defaults(void **state)
{
    (void)state;
    const char *const texts[] = {"", "# nothing\n", "---\n"};
    for (size_t i = 0; i < 3; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(parse(&c, texts[i], NULL, &err), 0);
        assert_string_equal(c.state_dir, "/var/lib/ds");
        assert_string_equal(c.socket, "/run/ds/dsd.sock");
        assert_string_equal(c.listen, "127.0.0.1:6818");
        assert_string_equal(c.core.checkpoint_dir, "/var/lib/ds/checkpoints");
        assert_int_equal(c.core.heartbeat_ms, 5000);
        assert_int_equal(c.core.lease_ms, 30000);
        assert_int_equal(c.log_level, LOG_INFO);
        config_fini(&c);
    }
}

/* The scheduler's section: every key, lists and their entries; owned memory goes with the config.
 */
static void test_scheduler(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    const char *yaml =
        "scheduler:\n"
        "  weights: {age: 1, fair_share: 2, size: 3, restart: 4, slowdown: 24}\n"
        "  age_full: 1d\n"
        "  half_life: 2d\n"
        "  backfill: {reservations: 5, depth: 6, horizon: 7d, shortest_first: false,\n"
        "             overtaken: 25s, overtaken_lengths: 26}\n"
        "  restart_hold: 27s\n"
        "  assumed_runtime: 8h\n"
        "  preemption: {enabled: false, priority_gap: 9, min_runtime: 0s, save_first: 10s,\n"
        "               save_max: 11s, per_job: 12}\n"
        "  spares: 13\n"
        "  classes: {high: 10, low: -10}\n"
        "  places: [{nodes: 'gpu[01-02]', zone: a, rack: r, leaf: l}, {nodes: gpu03}]\n"
        "  queues:\n"
        "    - {name: fast, priority: 14, weight: 1.5, nodes_max: 15, jobs_max: 16,\n"
        "       user_nodes_max: 17, user_jobs_max: 18, waiting_max: 19, priority_max: 20,\n"
        "       time_limit: 21s, preempts: true, preemptible: false, accepts: false,\n"
        "       starts: false}\n"
        "    - {name: plain}\n"
        "  accounts: [{name: red, shares: 22, nodes_max: 23, accepts: false}, {name: blue}]\n"
        "  accounts_closed: true\n";
    if (parse(&c, yaml, NULL, &err) != 0) {
        fail_msg("%s", err.text);
    }
    const struct policy *p = &c.core.policy;
    assert_int_equal(p->priority.age, 1);
    assert_int_equal(p->priority.fair_share, 2);
    assert_int_equal(p->priority.size, 3);
    assert_int_equal(p->priority.restart, 4);
    assert_int_equal(p->priority.age_full_ms, 86400000);
    assert_int_equal(p->priority.half_life_ms, 2 * 86400000);
    assert_int_equal(p->backfill.reservations, 5);
    assert_int_equal(p->backfill.depth, 6);
    assert_int_equal(p->backfill.horizon_ms, 7 * 86400000);
    assert_false(p->backfill.shortest_first);
    assert_int_equal(p->priority.slowdown, 24);
    assert_int_equal(p->backfill.overtaken_ms, 25000);
    assert_int_equal(p->backfill.overtaken_lengths, 26);
    assert_int_equal(p->restart_hold_ms, 27000);
    assert_int_equal(p->assumed_runtime_ms, 8 * 3600000);
    assert_false(p->preemption.enabled);
    assert_int_equal(p->preemption.priority_gap, 9);
    assert_int_equal(p->preemption.min_runtime_ms, 0);
    assert_int_equal(p->preemption.save_first_ms, 10000);
    assert_int_equal(p->preemption.save_max_ms, 11000);
    assert_int_equal(p->preemption.per_job, 12);
    assert_int_equal(p->spares, 13);
    assert_int_equal(p->class_count, 2);
    assert_string_equal(p->classes[0].name, "low");
    assert_string_equal(policy_class_of(p, 11)->name, "high");
    assert_null(policy_class_of(p, -11));
    assert_int_equal(p->place_count, 2);
    assert_string_equal(p->places[0].leaf, "l");
    assert_null(p->places[1].leaf);
    assert_int_equal(p->queue_count, 2);
    const struct queue_row *q = &p->queues[0];
    assert_int_equal(q->priority, 14);
    assert_int_equal(q->weight_milli, 1500);
    assert_int_equal(q->nodes_max, 15);
    assert_int_equal(q->jobs_max, 16);
    assert_int_equal(q->user_nodes_max, 17);
    assert_int_equal(q->user_jobs_max, 18);
    assert_int_equal(q->waiting_max, 19);
    assert_int_equal(q->priority_max, 20);
    assert_int_equal(q->time_limit_ms, 21000);
    assert_true(q->preempts && !q->preemptible && !q->accepts && !q->starts);
    assert_true(p->queues[1].preemptible && p->queues[1].accepts && p->queues[1].starts);
    assert_true(p->queues[1].nodes_max == ROW_NONE);
    assert_int_equal(p->account_count, 2);
    assert_int_equal(p->accounts[0].shares, 22);
    assert_int_equal(p->accounts[0].nodes_max, 23);
    assert_int_equal(p->accounts[1].shares, 1);
    assert_true(p->accounts_closed);
    config_fini(&c);
}

/* What is wrong in the section is refused with its line. */
static void test_scheduler_refused(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *message;
    } bad[] = {
        {"scheduler:\n  weight: {}", "dsd.yaml:2:3: key 'scheduler.weight': unknown"},
        {"scheduler:\n  half_life: 0s", "dsd.yaml:2:14: key 'scheduler.half_life': 0s is out"},
        {"scheduler:\n  queues: {name: x}", "dsd.yaml:2:11: key 'scheduler.queues': a list"},
        {"scheduler:\n  queues:\n    - {name: a}\n    - {name: a}",
         "dsd.yaml:4:14: key 'scheduler.queues[1].name': a is there twice"},
        {"scheduler:\n  queues:\n    - {name: a, nodes_max: -1}",
         "dsd.yaml:3:28: key 'scheduler.queues[0].nodes_max': -1 is out"},
        {"scheduler:\n  places: [{nodes: 'g[3-1]'}]",
         "dsd.yaml:2:20: key 'scheduler.places[0].nodes'"},
        {"scheduler:\n  classes: {high: x}", "dsd.yaml:2:19: key 'scheduler.classes.high'"},
        {"scheduler:\n  preemption: {save_first: 2m, save_max: 1m}",
         "dsd.yaml: scheduler.preemption.save_max is less than save_first"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(parse(&c, bad[i].yaml, NULL, &err), ERR_CONFIG);
        if (strncmp(err.text, bad[i].message, strlen(bad[i].message)) != 0) {
            fail_msg("%s", err.text);
        }
    }
}

/* Every key lands where it belongs; relative paths are relative to the file's folder. */
static void test_every_key(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    const char *yaml = "cluster: moon-1\n"
                       "state_dir: state\n"
                       "socket: /tmp/x.sock\n"
                       "listen: off\n"
                       "checkpoint_dir: /shared/ckpt\n"
                       "prices: prices.yaml\n"
                       "log_level: debug\n"
                       "heartbeat: 500ms\n"
                       "lease: 3s\n"
                       "recovering: 1m\n"
                       "stop_grace: 7\n"
                       "restart: {user_fault: 11s, backoff_first: 12s, backoff_max: 13s}\n"
                       "limits: {connections: 14, in_flight: 15, first_frame: 16s, stalled: 17s}\n";
    assert_int_equal(parse(&c, yaml, NULL, &err), 0);
    assert_string_equal(c.core.cluster, "moon-1");
    assert_string_equal(c.state_dir, "/etc/ds/state");
    assert_string_equal(c.socket, "/tmp/x.sock");
    assert_null(c.listen);
    assert_string_equal(c.core.checkpoint_dir, "/shared/ckpt");
    assert_string_equal(c.prices, "/etc/ds/prices.yaml");
    assert_int_equal(c.log_level, LOG_DEBUG);
    assert_int_equal(c.core.heartbeat_ms, 500);
    assert_int_equal(c.core.lease_ms, 3000);
    assert_int_equal(c.core.recovering_ms, 60000);
    assert_int_equal(c.core.stop_grace_ms, 7000);
    assert_int_equal(c.core.user_fault_ms, 11000);
    assert_int_equal(c.core.backoff_first_ms, 12000);
    assert_int_equal(c.core.backoff_max_ms, 13000);
    assert_int_equal(c.limits.connections_max, 14);
    assert_int_equal(c.limits.in_flight_max, 15);
    assert_int_equal(c.limits.first_frame_ms, 16000);
    assert_int_equal(c.limits.stalled_ms, 17000);
    config_fini(&c);
}

/* A flag wins over the file; its relative path is relative to the working folder. The checkpoints
 * follow the state folder. */
static void test_flags_win(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    char cwd[2048], wanted[2100];
    assert_non_null(getcwd(cwd, sizeof cwd));
    struct config_flags flags = {
        .state_dir = "here", .socket = "/s", .listen = "127.0.0.2:1", .prices = "/p"};
    assert_int_equal(
        parse(&c, "state_dir: /file\nsocket: /file\nlisten: off\nprices: /file\n", &flags, &err),
        0);
    snprintf(wanted, sizeof wanted, "%s/here", cwd);
    assert_string_equal(c.state_dir, wanted);
    snprintf(wanted, sizeof wanted, "%s/here/checkpoints", cwd);
    assert_string_equal(c.core.checkpoint_dir, wanted);
    assert_string_equal(c.socket, "/s");
    assert_string_equal(c.listen, "127.0.0.2:1");
    assert_string_equal(c.prices, "/p");
    config_fini(&c);
}

/* What is wrong is refused with its place, its key and what is allowed; nothing stays allocated. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *said;
    } cases[] = {
        {"clutser: x\n", "dsd.yaml:1:1"},
        {"clutser: x\n", "cluster"},
        {"\nheartbeat: soon\n", "dsd.yaml:2:12"},
        {"heartbeat: 0\n", "heartbeat"},
        {"heartbeat: -5s\n", "heartbeat"},
        {"lease: 31d\n", "lease"},
        {"heartbeat: [1]\n", "heartbeat"},
        {"heartbeat: 20s\nlease: 30s\n", "two heartbeats"},
        {"cluster: Moon Base\n", "a-z"},
        {"log_level: loud\n", "error"},
        {"limits: {connections: 0}\n", "limits.connections"},
        {"restart: {backoff_first: 10m, backoff_max: 1m}\n", "backoff_max"},
        {"restart: 3\n", "restart"},
        {"- a\n", "map"},
        {"a: b: c\n", "dsd.yaml:1"},
        {"cluster: a\ncluster: b\n", "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(parse(&c, cases[i].yaml, NULL, &err), ERR_CONFIG);
        assert_int_equal(err.code, ERR_CONFIG);
        if (strstr(err.text, cases[i].said) == NULL) {
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].said);
        }
    }
}

/* A configuration that was named and is not there is an error, not the defaults. */
static void test_missing_file(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    struct config_flags flags = {.config = "/nonexistent/dsd.yaml"};
    assert_int_not_equal(config_load(&c, &flags, &err), 0);
    assert_non_null(strstr(err.text, "/nonexistent/dsd.yaml"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_scheduler),
        cmocka_unit_test(test_scheduler_refused), cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_flags_win),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_file),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
