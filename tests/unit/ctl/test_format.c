#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "ctl/ranks.h"
#include "ctl/text.h"
#include "ctl/when.h"
#include "proto/format.h"

static struct buf out;

static const char *text(void)
{
    static char copy[256];
    snprintf(copy, sizeof copy, "%s", buf_cstr(&out));
    buf_fini(&out);
    return copy;
}

/* Two units at most, the smaller one with two digits. */
static void test_durations(void **state)
{
    (void)state;
    const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {-5, "0s"},          {0, "0s"},
        {1, "1ms"},          {999, "999ms"},
        {1000, "1s"},        {59999, "59s"},
        {60000, "1m00s"},    {190000, "3m10s"},
        {3599999, "59m59s"}, {3600000, "1h00m"},
        {18120000, "5h02m"}, {86400000, "1d00h"},
        {93600000, "1d02h"}, {34560000000, "400d"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        format_duration(&out, cases[i].ms);
        assert_string_equal(text(), cases[i].text);
    }
    format_duration(&out, INT64_MAX);
    assert_string_equal(text(), "106751991167d");
}

/* Three digits and a unit, never four digits by rounding. */
static void test_counts(void **state)
{
    (void)state;
    const struct {
        double count;
        const char *text;
    } cases[] = {
        {0, "0"},           {9999, "9999"},     {10000, "10.0K"},         {49152, "49.2K"},
        {99940, "99.9K"},   {999499, "999K"},   {999500, "1.00M"},        {1.234e6, "1.23M"},
        {9.996e6, "10.0M"}, {14.8e12, "14.8T"}, {1e30, "1000000000000E"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        format_count(&out, cases[i].count);
        assert_string_equal(text(), cases[i].text);
    }
}

/* Bytes in powers of 1024. */
static void test_bytes(void **state)
{
    (void)state;
    format_bytes(&out, 1023);
    assert_string_equal(text(), "1023 B");
    format_bytes(&out, 1024);
    assert_string_equal(text(), "1.0 KiB");
    format_bytes(&out, 1023 * 1024);
    assert_string_equal(text(), "1.0 MiB");
    format_bytes(&out, UINT64_MAX);
    assert_string_equal(text(), "16.0 EiB");
}

/* Money and GPU-hours are rounded from the integers, not by way of a double. */
static void test_money_and_hours(void **state)
{
    (void)state;
    format_usd(&out, 0);
    assert_string_equal(text(), "$0.00");
    format_usd(&out, 49);
    assert_string_equal(text(), "$0.0000");
    format_usd(&out, 50);
    assert_string_equal(text(), "$0.0001");
    format_usd(&out, 12345);
    assert_string_equal(text(), "$0.0123");
    format_usd(&out, 999999);
    assert_string_equal(text(), "$1.0000");
    format_usd(&out, 1000000);
    assert_string_equal(text(), "$1.00");
    format_usd(&out, 1005000);
    assert_string_equal(text(), "$1.01");
    format_usd(&out, 5576000000000);
    assert_string_equal(text(), "$5,576,000.00");
    format_usd(&out, -1234567891);
    assert_string_equal(text(), "-$1,234.57");
    format_usd(&out, -49);
    assert_string_equal(text(), "$0.0000");
    format_usd(&out, -450000);
    assert_string_equal(text(), "-$0.4500");
    format_usd(&out, INT64_MIN);
    assert_string_equal(text(), "-$9,223,372,036,854.78");
    format_gpu_hours(&out, 17999);
    assert_string_equal(text(), "0.00");
    format_gpu_hours(&out, 18000);
    assert_string_equal(text(), "0.01");
    format_gpu_hours(&out, 10036800000000);
    assert_string_equal(text(), "2788000.00");
    format_percent(&out, 1, 3);
    assert_string_equal(text(), "33.3%");
    format_percent(&out, 0, 0);
    assert_string_equal(text(), "-");
}

/* Times read back: UTC, offsets, local, so long ago. */
static void test_when(void **state)
{
    (void)state;
    int64_t ms = 0;
    setenv("TZ", "EST5", 1);
    tzset();
    assert_int_equal(when_parse("2026-11-23T21:08:54.123Z", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134123);
    assert_int_equal(when_parse("2026-11-23T21:08:54.123999Z", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134123);
    assert_int_equal(when_parse("2026-11-23T22:08:54.123+01:00", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134123);
    assert_int_equal(when_parse("2026-11-23T16:38:54.123-04:30", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134123);
    assert_int_equal(when_parse("2026-11-23 16:08:54", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134000);
    assert_int_equal(when_parse("2026-11-23T16:08", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795468080000);
    assert_int_equal(when_parse("2026-11-23", 0, &ms, NULL), 0);
    assert_int_equal(ms, 1795410000000);
    assert_int_equal(when_parse("2024-02-29T00:00:00Z", 0, &ms, NULL), 0);
    assert_int_equal(when_parse("7d", 1795468134123, &ms, NULL), 0);
    assert_int_equal(ms, 1795468134123 - 7 * 86400000LL);
    assert_int_equal(when_parse("now", 5, &ms, NULL), 0);
    assert_int_equal(ms, 5);
    format_time(&out, 1795468134123);
    assert_string_equal(text(), "2026-11-23 16:08:54");
}

/* What is no time is refused, not guessed at. */
static void test_when_refuses(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "yesterday",
                               "2026-13-01",
                               "2026-02-29",
                               "2026-00-10",
                               "2026-01-00",
                               "2026-1-1",
                               "2026-11-23T",
                               "2026-11-23T24:00",
                               "2026-11-23T12:60",
                               "2026-11-23T12:00:00.Z",
                               "2026-11-23T12:00+1",
                               "2026-11-23x",
                               "2026-11-23T12:00Zx",
                               "7x",
                               "-7d"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms = 0;
        if (when_parse(bad[i], 1795468134123, &ms, NULL) != ERR_USAGE) {
            fail_msg("'%s' is taken for a time", bad[i]);
        }
    }
}

/* Width counts columns, not bytes; colour takes none. */
static void test_width(void **state)
{
    (void)state;
    assert_int_equal(text_width("abc", 3), 3);
    assert_int_equal(text_width("äöü", strlen("äöü")), 3);
    assert_int_equal(text_width("日本", strlen("日本")), 4);
    assert_int_equal(text_width("e\xcc\x81", 3), 1);
    assert_int_equal(text_width("\033[31mred\033[0m", strlen("\033[31mred\033[0m")), 3);
    assert_int_equal(text_cut("äöü", strlen("äöü"), 2), 4);
    assert_int_equal(text_cut("日本", strlen("日本"), 3), 3);
    assert_int_equal(text_cut("\033[31mred\033[0m", 12, 2), 7);
    assert_int_equal(text_cut("\xff\xfe", 2, 9), 2);
}

/* Nothing in a name can move the cursor or colour the screen. */
static void test_clean(void **state)
{
    (void)state;
    text_append_clean(&out, "a\033[2Jb\r\nc\td\x7f");
    assert_string_equal(text(), "a [2Jb  c d ");
    text_append_clean(&out, "\xc2\x9b"
                            "31m ok ä \xff");
    assert_string_equal(text(), "  31m ok ä ?");
    text_append_clean(&out, "");
    assert_string_equal(text(), "");
}

/* Insertions, deletions, replacements and swaps count one each. */
static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(text_distance("", ""), 0);
    assert_int_equal(text_distance("list", "list"), 0);
    assert_int_equal(text_distance("lst", "list"), 1);
    assert_int_equal(text_distance("lsit", "list"), 1);
    assert_int_equal(text_distance("lisst", "list"), 1);
    assert_int_equal(text_distance("lest", "list"), 1);
    assert_int_equal(text_distance("", "abc"), 3);
    assert_int_equal(text_distance("kitten", "sitting"), 3);
}

static void assert_ranks(const char *list, uint32_t world, const char *expected)
{
    uint32_t *ranks = NULL;
    size_t count = 0;
    assert_int_equal(ranks_parse(list, world, &ranks, &count, NULL), 0);
    for (size_t i = 0; i < count; i++) {
        buf_printf(&out, "%u ", ranks[i]);
    }
    assert_string_equal(text(), expected);
    free(ranks);
}

/* Lists and ranges, each rank once, in order; what is not there is not found. */
static void test_ranks(void **state)
{
    (void)state;
    uint32_t *ranks = NULL;
    size_t count = 0;
    assert_ranks("0", 4, "0 ");
    assert_ranks("all", 3, "0 1 2 ");
    assert_ranks("3,1-2,2", 4, "1 2 3 ");
    assert_int_equal(ranks_parse("4", 4, &ranks, &count, NULL), ERR_NOT_FOUND);
    assert_int_equal(ranks_parse("0-99999999999", 4, &ranks, &count, NULL), ERR_NOT_FOUND);
    const char *const bad[] = {"", "x", "1,", ",1", "2-1", "1-", "-1", "1 2", "a-b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ranks_parse(bad[i], 4, &ranks, &count, NULL), ERR_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_bytes),     cmocka_unit_test(test_money_and_hours),
        cmocka_unit_test(test_when),      cmocka_unit_test(test_when_refuses),
        cmocka_unit_test(test_width),     cmocka_unit_test(test_clean),
        cmocka_unit_test(test_distance),  cmocka_unit_test(test_ranks),
    };
    return cmocka_run_group_tests_name("ctl format", tests, NULL, NULL);
}
