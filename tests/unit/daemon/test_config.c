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
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_flags_win),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_file),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
