#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lib/hostlist.h"
#include "lib/mem.h"
#include "tests/unit/random.h"

static void expands(const char *text, const char *expected)
{
    struct hostlist h = {0};
    struct err err = {0};
    struct buf joined = {0};
    int rc = hostlist_expand(&h, text, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < h.count; i++) {
        buf_printf(&joined, "%s%s", i > 0 ? " " : "", h.names[i]);
    }
    assert_string_equal(buf_cstr(&joined), expected);
    buf_fini(&joined);
    hostlist_fini(&h);
}

/* Ranges keep their zeros, several brackets multiply, order is the text's. */
static void test_expand(void **state)
{
    (void)state;
    expands("gpu[001-003,040],login1", "gpu001 gpu002 gpu003 gpu040 login1");
    expands("n[9-11]", "n9 n10 n11");
    expands("n[08-10]", "n08 n09 n10");
    expands("r[1-2]n[1-2].x", "r1n1.x r1n2.x r2n1.x r2n2.x");
    expands(" a, b\tc,,d ", "a b c d");
    expands("[1-2]", "1 2");
    expands("n[5]", "n5");
    expands("b,a,b", "b a b");
}

/* What makes no list is refused and leaves the list as it was; a list larger than any cluster too,
 * without making it first. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " , ",
                                      "n[",
                                      "n]",
                                      "n[1",
                                      "n[]",
                                      "n[a]",
                                      "n[1-]",
                                      "n[-1]",
                                      "n[2-1]",
                                      "n[1,]",
                                      "n[1-2-3]",
                                      "n[1[2]]",
                                      "n[1 2]",
                                      "n[0-99999999999999999]",
                                      "n[1234567890123456789]",
                                      "n[1-70000]",
                                      "a[0-999]b[0-999]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostlist h = {0};
        struct err err;
        assert_int_equal(hostlist_expand(&h, "first", &err), 0);
        assert_int_equal(hostlist_expand(&h, bad[i], &err), ERR_USAGE);
        assert_int_equal(h.count, 1);
        assert_string_equal(h.names[0], "first");
        hostlist_fini(&h);
    }
    char large[400];
    struct hostlist h = {0};
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = 0;
    assert_int_equal(hostlist_expand(&h, large, NULL), ERR_USAGE);
    hostlist_fini(&h);
}

static void compresses(const char *text, const char *expected)
{
    struct hostlist h = {0};
    struct buf out = {0};
    assert_int_equal(hostlist_expand(&h, text, NULL), 0);
    hostlist_compress((const char *const *)h.names, h.count, &out);
    assert_string_equal(buf_cstr(&out), expected);
    buf_fini(&out);
    hostlist_fini(&h);
}

/* The shortest form, sorted by number, each name once. */
static void test_compress(void **state)
{
    (void)state;
    compresses("gpu003 gpu001 gpu002 gpu040 login1", "gpu[001-003,040],login1");
    compresses("n10 n9 n8 n9", "n[8-10]");
    compresses("n08 n09 n10", "n[08-10]");
    compresses("n9 n09 n10", "n[9,09,10]");
    compresses("n1 n2", "n[1,2]");
    compresses("n7", "n7");
    compresses("b a b", "a,b");
    compresses("r1n1.x r1n2.x r1n3.x r2n1.x", "r1n[1-3].x,r2n1.x");
    compresses("n98 n99 n100 n101", "n[98-101]");
    compresses("n099 n100 n0101", "n[099,100,0101]");
    struct buf out = {0};
    hostlist_compress(NULL, 0, &out);
    assert_string_equal(buf_cstr(&out), "");
    buf_fini(&out);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Expanding what was compressed gives the same set, for random names. */
static void test_round_trip(void **state)
{
    (void)state;
    random_start("hostlist round trip");
    for (int i = 0; i < 3000; i++) {
        static const char *const prefixes[] = {"n", "gpu", "", "a1b", "n0", "x-"};
        static const char *const suffixes[] = {"", "", ".lan", "-ib"};
        struct hostlist names = {0};
        struct hostlist again = {0};
        struct buf text = {0};
        names.count = names.capacity = 1 + random_below(40);
        names.names = mem_alloc_array(names.count, sizeof(char *));
        for (size_t k = 0; k < names.count; k++) {
            int width = (int)random_below(4);
            names.names[k] = mem_printf("%s%0*d%s", prefixes[random_below(6)], width,
                                        (int)random_below(random_one_in(2) ? 30 : 1100),
                                        suffixes[random_below(4)]);
        }
        hostlist_compress((const char *const *)names.names, names.count, &text);
        assert_int_equal(hostlist_expand(&again, buf_cstr(&text), NULL), 0);
        qsort(names.names, names.count, sizeof(char *), by_name);
        qsort(again.names, again.count, sizeof(char *), by_name);
        size_t unique = 0;
        for (size_t k = 0; k < names.count; k++) {
            if (k == 0 || strcmp(names.names[k], names.names[k - 1]) != 0) {
                assert_true(unique < again.count);
                assert_string_equal(names.names[k], again.names[unique++]);
            }
        }
        assert_int_equal(unique, again.count);
        hostlist_fini(&names);
        hostlist_fini(&again);
        buf_fini(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expand), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_compress), cmocka_unit_test(test_round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
