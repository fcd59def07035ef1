#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/encode.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "proto/pick.h"

static void shout(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_printf(out, "%s!", json_string_value(value));
}

static json_t *twice(const json_t *item)
{
    return json_integer(pick_int(item, "n") * 2);
}

static const struct column columns[] = {
    {"NAME", "name", 0, NULL, NULL},
    {"N", "n", COLUMN_RIGHT, NULL, NULL},
    {"TWICE", "twice", COLUMN_RIGHT | COLUMN_WIDE, NULL, twice},
    {"STATE", "sub.state", COLUMN_STATE, NULL, NULL},
    {"RAW", "n", COLUMN_CSV, NULL, NULL},
    {"TEXT", "text", 0, shout, NULL},
};
#define COUNT (sizeof columns / sizeof columns[0])

static json_t *rows(void)
{
    return json_loads("[{\"name\":\"a\",\"n\":100,\"sub\":{\"state\":\"UP\"},\"text\":\"x\"},"
                      " {\"name\":\"b\\u001b[2J\",\"n\":7,\"sub\":{\"state\":\"DOWN\"},\"text\":"
                      "\"it, \\\"so\\\"\"},"
                      " {\"name\":\"日本\",\"n\":null,\"sub\":null,\"text\":null}]",
                      0, NULL);
}

static char *table(const struct terminal *t, bool wide, bool no_header)
{
    const struct table_view view = {t, wide, no_header};
    struct buf out = {0};
    json_t *items = rows();
    table_text(&out, items, columns, COUNT, &view);
    json_decref(items);
    return buf_cstr(&out);
}

static void assert_table(const struct terminal *t, bool wide, bool no_header, const char *expected)
{
    char *text = table(t, wide, no_header);
    assert_string_equal(text, expected);
    free(text);
}

/* Columns line up, numbers at the right, no blanks at the ends, null as -, control characters gone.
 */
static void test_alignment(void **state)
{
    (void)state;
    const struct terminal plain = {.columns = 80, .rows = 24};
    assert_table(&plain, false, false,
                 "NAME     N  STATE  TEXT\n"
                 "a      100  UP     x!\n"
                 "b [2J    7  DOWN   it, \"so\"!\n"
                 "日本     -  -      -\n");
    assert_table(&plain, true, true,
                 "a      100  200  UP    x!\n"
                 "b [2J    7   14  DOWN  it, \"so\"!\n"
                 "日本     -    0  -     -\n");
}

/* On a terminal the last column is cut to what fits; states have their colour. */
static void test_on_a_terminal(void **state)
{
    (void)state;
    const struct terminal narrow = {.is_tty = true, .columns = 34, .rows = 24};
    char *text = table(&narrow, false, true);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        assert_true(text_width(line, strlen(line)) <= 34);
    }
    free(text);
    const struct terminal coloured = {.is_tty = true, .colour = true, .columns = 80, .rows = 24};
    text = table(&coloured, false, true);
    assert_non_null(strstr(text, "\033[32mUP\033[0m "));
    assert_non_null(strstr(text, "\033[31mDOWN\033[0m "));
    free(text);
}

static void assert_fitted(size_t columns_of_terminal, const char *expected)
{
    static const struct column some[] = {
        {"NAME", "name", COLUMN_LONG, NULL, NULL},
        {"N", "n", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
        {"TEXT", "text", 0, NULL, NULL},
    };
    const struct terminal t = {
        .is_tty = true, .columns = columns_of_terminal, .rows = 24, .utf8 = true};
    const struct table_view view = {&t, false, true};
    struct buf out = {0};
    json_t *items = json_loads(
        "[{\"name\":\"abcdefghijklmnop\",\"n\":12345,\"text\":\"0123456789012345678901234567890\"},"
        " {\"name\":\"abc\",\"n\":1,\"text\":\"x\"}]",
        0, NULL);
    table_text(&out, items, some, 3, &view);
    assert_string_equal(buf_cstr(&out), expected);
    json_decref(items);
    buf_fini(&out);
}

/* What does not fit: the last column is cut first, then spare columns go, then long ones are cut;
 * each cut shows. */
static void test_fit(void **state)
{
    (void)state;
    assert_fitted(56, "abcdefghijklmnop  12345  0123456789012345678901234567890\n"
                      "abc                   1  x\n");
    assert_fitted(45, "abcdefghijklmnop  12345  0123456789012345678…\n"
                      "abc                   1  x\n");
    assert_fitted(36, "abcdefghijklmnop  01234567890123456…\n"
                      "abc               x\n");
    assert_fitted(30, "abcdefghijk…  012345678901234…\n"
                      "abc           x\n");
    assert_fitted(20, "abcdefg…  012345678901234…\n"
                      "abc       x\n");
}

/* A last column that wraps goes on below itself, broken at blanks; a longer word is broken where it
 * must. */
static void test_wrap(void **state)
{
    (void)state;
    static const struct column some[] = {
        {"N", "n", COLUMN_RIGHT, NULL, NULL},
        {"TEXT", "text", COLUMN_WRAP, NULL, NULL},
    };
    const struct terminal t = {.is_tty = true, .columns = 43, .rows = 24};
    const struct table_view view = {&t, false, true};
    struct buf out = {0};
    json_t *items =
        json_loads("[{\"n\":1,\"text\":\"node node1 is connected again after a long while\"},"
                   " {\"n\":2,\"text\":\"01234567890123456789012345678901234567890123456789 x\"},"
                   " {\"n\":3,\"text\":\"short\"}]",
                   0, NULL);
    table_text(&out, items, some, 2, &view);
    assert_string_equal(buf_cstr(&out), "1  node node1 is connected again after a\n"
                                        "   long while\n"
                                        "2  0123456789012345678901234567890123456789\n"
                                        "   0123456789 x\n"
                                        "3  short\n");
    json_decref(items);
    buf_fini(&out);
}

/* CSV has all columns, raw values, quotes where RFC 4180 wants them. */
static void test_csv(void **state)
{
    (void)state;
    struct buf out = {0};
    json_t *items = rows();
    table_csv(&out, items, columns, COUNT, false);
    assert_string_equal(buf_cstr(&out), "name,n,twice,sub.state,n,text\n"
                                        "a,100,200,UP,100,x\n"
                                        "b\033[2J,7,14,DOWN,7,\"it, \"\"so\"\"\"\n"
                                        "日本,,0,,,\n");
    json_decref(items);
    buf_fini(&out);
}

static void assert_order(const char *by, const char *names)
{
    struct buf got = {0};
    struct err err = {0};
    json_t *items = rows();
    assert_int_equal(table_sort(items, columns, COUNT, by, &err), 0);
    for (size_t i = 0; i < json_array_size(items); i++) {
        buf_append(&got, pick_text(json_array_get(items, i), "name"), 1);
    }
    assert_string_equal(buf_cstr(&got), names);
    json_decref(items);
    buf_fini(&got);
}

/* By title in any case or by key, both ways; numbers as numbers; null last either way; unknown
 * columns are refused. */
static void test_sort(void **state)
{
    (void)state;
    struct err err = {0};
    assert_order("n", "ba\xe6");
    assert_order("-N", "ab\xe6");
    assert_order("-name", "\xe6"
                          "ba");
    assert_order("sub.state", "ba\xe6");
    assert_order("-twice", "ab\xe6");
    json_t *items = rows();
    assert_int_equal(table_sort(items, columns, COUNT, "colour", &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "NAME, N, TWICE"));
    assert_int_equal(json_array_size(items), 3);
    json_decref(items);
}

/* JSON reads back as the same value; reals are as short as that allows. */
static void test_json(void **state)
{
    (void)state;
    json_t *value =
        json_pack("{s:s, s:f, s:f, s:[], s:{}, s:[i,b,n], s:I}", "text", "a\"\\\n\033ä", "short",
                  0.1, "whole", 2.0, "none", "empty", "list", 1, 1, "big", (json_int_t)INT64_MIN);
    for (int pretty = 0; pretty < 2; pretty++) {
        struct buf out = {0};
        encode_json(&out, value, pretty != 0);
        json_t *back = json_loads(buf_cstr(&out), 0, NULL);
        assert_non_null(back);
        assert_true(json_equal(value, back));
        assert_non_null(strstr(buf_cstr(&out), "0.1"));
        assert_null(strstr(buf_cstr(&out), "0.10000"));
        json_decref(back);
        buf_fini(&out);
    }
    json_decref(value);
}

/* YAML: block style, and a string that looks like something else is quoted. */
static void test_yaml(void **state)
{
    (void)state;
    struct buf out = {0};
    json_t *value = json_loads(
        "{\"schema\":\"ds/job/"
        "v1\",\"n\":1,\"list\":[{\"a\":\"yes\",\"b\":[1,2]},{\"a\":\"1e3\"},[],[[3]]],"
        "\"none\":null,\"empty\":{},\"t\":\"a: b\",\"z\":\"\",\"at\":\"2026-11-23T21:08:54.123Z\"}",
        0, NULL);
    encode_yaml(&out, value);
    assert_string_equal(buf_cstr(&out), "schema: ds/job/v1\n"
                                        "\"n\": 1\n"
                                        "list:\n"
                                        "- a: \"yes\"\n"
                                        "  b:\n"
                                        "  - 1\n"
                                        "  - 2\n"
                                        "- a: \"1e3\"\n"
                                        "- []\n"
                                        "-\n"
                                        "  -\n"
                                        "    - 3\n"
                                        "none: null\n"
                                        "empty: {}\n"
                                        "t: \"a: b\"\n"
                                        "z: \"\"\n"
                                        "at: \"2026-11-23T21:08:54.123Z\"\n");
    json_decref(value);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment), cmocka_unit_test(test_on_a_terminal),
        cmocka_unit_test(test_fit),       cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_csv),       cmocka_unit_test(test_sort),
        cmocka_unit_test(test_json),      cmocka_unit_test(test_yaml),
    };
    return cmocka_run_group_tests_name("ctl table", tests, NULL, NULL);
}
