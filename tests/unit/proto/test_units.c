#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/jobspec.h"

static void takes_duration(const char *text, uint64_t expected)
{
    uint64_t ms = 0;
    struct err err = {0};
    int rc = duration_parse(text, &ms, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_int_equal(ms, expected);
}

static void refuses_duration(const char *text)
{
    uint64_t ms;
    struct err err;
    assert_int_equal(duration_parse(text, &ms, &err), ERR_INVALID);
}

/* Durations: units, fractions that come out whole, sums; anything else is refused. */
static void test_duration(void **state)
{
    (void)state;
    takes_duration("0", 0);
    takes_duration("90", 90000);
    takes_duration("1.5", 1500);
    takes_duration("1500ms", 1500);
    takes_duration("30s", 30000);
    takes_duration("5m", 300000);
    takes_duration("2h", 7200000);
    takes_duration("30d", 2592000000);
    takes_duration("1h30m", 5400000);
    takes_duration("1.5h", 5400000);
    takes_duration("0.001s", 1);
    takes_duration("36500d", 36500ull * 86400000);
    static const char *const bad[] = {"",
                                      " ",
                                      "s",
                                      "5x",
                                      "5 m",
                                      "-5m",
                                      "+5",
                                      "5M",
                                      "1h30",
                                      "0.5ms",
                                      "1.2.3s",
                                      "1e3s",
                                      "m5",
                                      "36501d",
                                      "36500d1ms",
                                      "99999999999999999999d",
                                      "1.00000000000000000001h",
                                      ".",
                                      "inf",
                                      "nan",
                                      "5m ",
                                      "5min"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuses_duration(bad[i]);
    }
}

static void takes_count(const char *text, uint64_t expected)
{
    uint64_t count = 0;
    struct err err = {0};
    int rc = count_parse(text, &count, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_int_equal(count, expected);
}

/* Counts are exact whole numbers or refused, never rounded. */
static void test_count(void **state)
{
    (void)state;
    takes_count("0", 0);
    takes_count("200", 200);
    takes_count("64K", 64000);
    takes_count("64k", 64000);
    takes_count("14.8T", 14800000000000);
    takes_count("1.5e9", 1500000000);
    takes_count("1.5E+09", 1500000000);
    takes_count("7B", 7000000000);
    takes_count("7G", 7000000000);
    takes_count("2M", 2000000);
    takes_count("200.0", 200);
    takes_count("9007199254740993", 9007199254740993); /* no double holds it */
    takes_count("18446744073709551615", UINT64_MAX);
    static const char *const bad[] = {"",
                                      "K",
                                      "1.5",
                                      "14.8",
                                      "1.2345K",
                                      "18446744073709551616",
                                      "18446744073709551615K",
                                      "1e20",
                                      "1e-3",
                                      "1e",
                                      "1e+",
                                      "1eK",
                                      "-1",
                                      "+1",
                                      "1 K",
                                      "1KK",
                                      "0x10",
                                      "1_000",
                                      "1,000",
                                      "nan",
                                      "inf",
                                      "1e999",
                                      "T",
                                      "1m"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t count;
        struct err err;
        assert_int_equal(count_parse(bad[i], &count, &err), ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_duration),
                                       cmocka_unit_test(test_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
