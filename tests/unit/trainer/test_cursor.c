#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "trainer/cursor.h"
#include "trainer/rng.h"

enum { POSITIONS = 500 };

/* Whatever is skipped in whatever order, the cursor shows what a list of flags says it should. */
static void test_against_flags(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)time(NULL);
    print_message("seed %llu\n", (unsigned long long)seed);
    uint64_t roll = 0;
    for (int round = 0; round < 300; round++) {
        bool skipped[2 * POSITIONS] = {false};
        struct cursor c = {0};
        int ranges = (int)(rng_u64(seed, 1, roll++) % 12);
        for (int i = 0; i < ranges; i++) {
            uint64_t first = rng_u64(seed, 1, roll++) % POSITIONS;
            uint64_t count = rng_u64(seed, 1, roll++) % 60;
            cursor_skip(&c, first, count);
            for (uint64_t p = first; p < first + count; p++) {
                skipped[p] = true;
            }
        }
        for (size_t i = 1; i < c.skip_count; i++) {
            assert_true(c.skips[i - 1].first + c.skips[i - 1].count < c.skips[i].first);
        }
        uint64_t in_all = 0;
        for (uint64_t p = 0; p < POSITIONS; p++) {
            in_all += skipped[p];
            assert_int_equal(cursor_skipped(&c, p, 1), skipped[p]);
        }
        assert_int_equal(cursor_skipped(&c, 0, POSITIONS), in_all);
        uint64_t p = 0;
        while (p < POSITIONS - 40) {
            uint64_t take = rng_u64(seed, 1, roll++) % 9;
            for (uint64_t i = 0; i < take; i++) {
                while (skipped[p]) {
                    p++;
                }
                assert_int_equal(cursor_nth(&c, i), p++);
            }
            cursor_advance(&c, take);
        }
        cursor_fini(&c);
    }
}

/* Two ranges that touch are one; a range of nothing changes nothing; the ends of the number line
 * hold. */
static void test_edges(void **state)
{
    (void)state;
    struct cursor c = {0};
    cursor_skip(&c, 10, 0);
    assert_int_equal(c.skip_count, 0);
    cursor_skip(&c, 10, 5);
    cursor_skip(&c, 20, 5);
    cursor_skip(&c, 15, 5);
    assert_int_equal(c.skip_count, 1);
    assert_int_equal(c.skips[0].first, 10);
    assert_int_equal(c.skips[0].count, 15);
    cursor_skip(&c, UINT64_MAX - 3, 3);
    assert_int_equal(c.skip_count, 2);
    cursor_advance(&c, 10);
    assert_int_equal(c.position, 10);
    assert_int_equal(cursor_nth(&c, 0), 25);
    cursor_advance(&c, 0);
    assert_int_equal(c.position, 10);
    cursor_fini(&c);
    assert_null(c.skips);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_flags),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
