#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/jobspec.h"
#include "tests/unit/random.h"

static struct err err;

/* Every second of four centuries that is tried comes back as it went, and as the C library has it.
 */
static void test_time_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        int64_t ms = (int64_t)random_below(12622780800ull) * 1000;
        char text[32], expected[32];
        time_format(ms, text, sizeof text);
        time_t seconds = (time_t)(ms / 1000);
        struct tm tm;
        strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
        assert_string_equal(text, expected);
        int64_t back;
        assert_int_equal(time_parse(text, &back, &err), 0);
        assert_int_equal(back, ms);
    }
}

/* Forms with a zone, without seconds, without a time of day; and what is none. */
static void test_time_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t s;
    } good[] = {{"2026-01-31", 1769817600},
                {"2026-01-31T06:00", 1769839200},
                {"2026-01-31 06:00:05Z", 1769839205},
                {"2026-01-31T06:00:00+01:30", 1769833800},
                {"2026-01-31T06:00:00-01:00", 1769842800},
                {"2024-02-29", 1709164800}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t ms;
        assert_int_equal(time_parse(good[i].text, &ms, &err), 0);
        assert_int_equal(ms, good[i].s * 1000);
    }
    static const char *const bad[] = {"",
                                      "2026",
                                      "2026-02-29",
                                      "2026-13-01",
                                      "2026-00-10",
                                      "2026-01-00",
                                      "2026-01-31T24:00",
                                      "2026-01-31T06",
                                      "2026-01-31T06:00X",
                                      "1969-12-31"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms;
        assert_int_equal(time_parse(bad[i], &ms, &err), ERR_INVALID);
    }
}

/* Ranges, steps, lists and the limit; doubles count once; the short form is found again. */
static void test_array(void **state)
{
    (void)state;
    static const struct {
        const char *text, *shortest;
        size_t count;
        uint32_t last, limit;
    } good[] = {{"7", "7", 1, 7, 0},
                {"0-99%10", "0-99%10", 100, 99, 10},
                {"1,3,5", "1-5:2", 3, 5, 0},
                {"5,1-3,2", "1-3,5", 4, 5, 0},
                {"0-100:50", "0-100:50", 3, 100, 0},
                {"0-101:50", "0-100:50", 3, 100, 0},
                {"0-9999", "0-9999", 10000, 9999, 0}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint32_t *indices, limit;
        size_t count;
        assert_int_equal(array_parse(good[i].text, &indices, &count, &limit, &err), 0);
        assert_int_equal(count, good[i].count);
        assert_int_equal(indices[count - 1], good[i].last);
        assert_int_equal(limit, good[i].limit);
        char *text = array_format(indices, count, limit);
        assert_string_equal(text, good[i].shortest);
        free(text);
        free(indices);
    }
    static const char *const bad[] = {"",    "a",     "1-",      "3-1",          "1,", "1%0", "1%",
                                      "1:2", "1-5:0", "0-10000", "0-4294967295", "-1", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint32_t *indices, limit;
        size_t count;
        assert_int_equal(array_parse(bad[i], &indices, &count, &limit, &err), ERR_INVALID);
    }
}

static int parse(struct jobspec *s, const char *more)
{
    char text[512];
    snprintf(text, sizeof text, "name: j\ncommand: [true]\n%s\n", more);
    return jobspec_parse(s, text, strlen(text), "job.yaml", "/", NULL, 0, &err);
}

/* Every key is read; the kept form of dependencies parses back. */
static void test_keys(void **state)
{
    (void)state;
    struct jobspec s;
    assert_int_equal(parse(&s, "array: 0-3%2\n"
                               "dependencies: {afterok: [9, 4], after: 4, singleton: true}\n"
                               "not_before: 2h\ndeadline: 2026-01-31T06:00:00Z\n"
                               "preemptible: false\nmin_runtime: 15m\nspares: 2\nhold: true\n"
                               "placement: leaf"),
                     0);
    assert_int_equal(s.array_count, 4);
    assert_int_equal(s.array_limit, 2);
    assert_int_equal(s.dependency_count, 3);
    assert_int_equal(s.dependencies[0].job, 4);
    assert_int_equal(s.dependencies[0].kind, DEPENDENCY_AFTER);
    assert_int_equal(s.dependencies[1].kind, DEPENDENCY_AFTER_OK);
    assert_int_equal(s.dependencies[2].job, 9);
    assert_true(s.singleton);
    assert_int_equal(s.not_before.in_ms, 7200000);
    assert_int_equal(s.deadline.at_ms, 1769839200000);
    assert_int_equal(s.preemptible, BY_POLICY_NO);
    assert_int_equal(s.min_runtime_ms, 900000);
    assert_int_equal(s.spares, 2);
    assert_true(s.hold);
    assert_int_equal(s.placement, PLACEMENT_LEAF);
    char *text = dependencies_format(s.dependencies, s.dependency_count, s.singleton);
    assert_string_equal(text, "after:4 afterok:4 afterok:9 singleton");
    struct dependency *list;
    size_t count;
    bool singleton;
    assert_int_equal(dependencies_parse(text, &list, &count, &singleton, &err), 0);
    assert_int_equal(count, 3);
    assert_memory_equal(list, s.dependencies, count * sizeof *list);
    assert_true(singleton);
    free(list);
    free(text);
    jobspec_fini(&s);
    assert_int_equal(parse(&s, ""), 0);
    assert_int_equal(s.min_runtime_ms, UINT64_MAX);
    assert_null(dependencies_format(s.dependencies, s.dependency_count, s.singleton));
    jobspec_fini(&s);
}

/* What cannot be meant is refused with its line and what is allowed. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"array: 5-1", "job.yaml:3:8: key 'array': '5-1' is not an array of at most 10000 jobs"},
        {"dependencies: {afterok: [x]}", "job.yaml:3:26: key 'dependencies.afterok[0]'"},
        {"dependencies: {afterko: 3}", "job.yaml:3:25: key 'dependencies.afterko': unknown key"},
        {"dependencies: [3]", "job.yaml:3:15: key 'dependencies': a map is expected"},
        {"not_before: tomorrow", "job.yaml:3:13: key 'not_before': neither a time nor a duration"},
        {"not_before: 2h\ndeadline: 1h", "job.yaml:4:11: key 'deadline': is not after not_before"},
        {"preemptible: maybe", "job.yaml:3:14: key 'preemptible'"},
        {"placement: rows", "job.yaml:3:12: key 'placement'"},
        {"gpus_per_node: 0\nspares: 1", "job.yaml:4:9: key 'spares': needs accelerators"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct jobspec s;
        assert_int_equal(parse(&s, bad[i].text), ERR_INVALID);
        if (strncmp(err.text, bad[i].message, strlen(bad[i].message)) != 0) {
            fail_msg("%s", err.text);
        }
    }
}

int main(void)
{
    random_start("jobspec_when");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_round_trip), cmocka_unit_test(test_time_forms),
        cmocka_unit_test(test_array),           cmocka_unit_test(test_keys),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
