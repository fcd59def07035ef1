#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/sampler.h"

/* For every size the permutation visits each index exactly once. */
static void test_bijection(void **state)
{
    (void)state;
    static uint8_t seen[70000];
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 100, 255, 1024, 1025, 65537};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (uint64_t key = 0; key < 3; key++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < sizes[k]; i++) {
                uint64_t at = sampler_permute(key, sizes[k], i);
                assert_true(at < sizes[k]);
                assert_int_equal(seen[at]++, 0);
            }
        }
    }
    /* corpora of petabytes: in range and not the identity */
    uint64_t huge = ((uint64_t)1 << 62) + 12345;
    int fixed = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t at = sampler_permute(7, huge, i);
        assert_true(at < huge);
        fixed += at == i;
    }
    assert_int_equal(fixed, 0);
}

/* An epoch shows every window once, the next epoch in another order, another seed in yet another.
 */
static void test_epochs(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct sampler s = {.seed = 1, .windows = N, .sequence_length = 16};
    struct sampler other = {.seed = 2, .windows = N, .sequence_length = 16};
    uint8_t seen[N] = {0};
    int same_next = 0;
    int same_seed = 0;
    int in_order = 0;
    for (uint64_t p = 0; p < N; p++) {
        uint64_t w = sampler_window(&s, p);
        seen[w]++;
        same_next += w == sampler_window(&s, p + N);
        same_seed += w == sampler_window(&other, p);
        in_order += sampler_window(&s, p + 1) == w + 1;
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(seen[i], 1);
    }
    assert_true(same_next < 20 && same_seed < 20 && in_order < 20);
}

/* The order never changes between versions: a resumed run must see the data that the first one
 * would have. */
static void test_frozen(void **state)
{
    (void)state;
    struct sampler s = {.seed = 1, .windows = 1000, .sequence_length = 16};
    uint64_t sum = 0;
    for (uint64_t p = 0; p < 3000; p++) {
        sum = sum * 31 + sampler_window(&s, p);
    }
    assert_int_equal(sum, 0xcb04de6c7e8b2880);
}

/* Windows tile the corpus: token w * length is the first, and the last window ends inside. */
static void test_windows(void **state)
{
    (void)state;
    assert_int_equal(sampler_windows(0, 8), 0);
    assert_int_equal(sampler_windows(8, 8), 0);
    assert_int_equal(sampler_windows(9, 8), 1);
    assert_int_equal(sampler_windows(16, 8), 1);
    assert_int_equal(sampler_windows(17, 8), 2);
    struct sampler s = {.seed = 1, .windows = 2, .sequence_length = 8};
    assert_int_equal(sampler_token(&s, 1) + s.sequence_length + 1, 17);
}

/* Validation windows are distinct while there are enough, spread to the end, and repeat when there
 * are not. */
static void test_valid(void **state)
{
    (void)state;
    uint64_t last = 0;
    for (uint64_t i = 0; i < 64; i++) {
        uint64_t w = sampler_valid_window(1000, i, 64);
        assert_true(w < 1000 && (i == 0 || w > last));
        last = w;
    }
    assert_true(last > 950);
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(sampler_valid_window(5, i, 64), i % 5);
        assert_int_equal(sampler_valid_window(64, i, 64), i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bijection), cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_frozen),    cmocka_unit_test(test_windows),
        cmocka_unit_test(test_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
