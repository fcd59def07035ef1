#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/mixture.h"

/* Whatever the weights: a source's sequences are each shown once and without a gap, and after any
 * number of blocks its share is its weight's to within one sequence a source. */
static void test_shares(void **state)
{
    (void)state;
    enum { BLOCKS = 9 };
    random_start(__func__);
    for (int round = 0; round < 40; round++) {
        double weights[DATA_SOURCES_MAX], sum = 0;
        uint32_t count = 1 + (uint32_t)random_below(round == 0 ? 1 : DATA_SOURCES_MAX);
        count = round == 1 ? DATA_SOURCES_MAX : count;
        for (uint32_t i = 0; i < count; i++) {
            weights[i] = round == 1 ? 1 : exp((double)random_below(1400) / 100 - 7);
            sum += weights[i];
        }
        struct mixture m;
        mixture_init(&m, random_next(), weights, count);
        uint8_t *seen = mem_alloc_array((size_t)count * BLOCKS * MIXTURE_BLOCK, 1);
        uint64_t taken[DATA_SOURCES_MAX] = {0};
        for (uint64_t p = 0; p < BLOCKS * MIXTURE_BLOCK; p++) {
            uint64_t n;
            uint32_t source = mixture_at(&m, p, &n);
            assert_true(source < count && n < BLOCKS * MIXTURE_BLOCK);
            assert_int_equal(seen[source * BLOCKS * MIXTURE_BLOCK + n]++, 0);
            taken[source]++;
            if (random_one_in(5000)) { /* what was counted one by one is known without counting */
                uint64_t before[DATA_SOURCES_MAX];
                mixture_before(&m, p + 1, before);
                assert_memory_equal(before, taken, count * sizeof before[0]);
            }
            if ((p + 1) % MIXTURE_BLOCK != 0) {
                continue;
            }
            for (uint32_t i = 0; i < count; i++) {
                assert_true(fabs((double)taken[i] - weights[i] / sum * (double)(p + 1)) <= count);
            }
        }
        for (uint32_t i = 0; i < count; i++) {
            for (uint64_t n = 0; n < taken[i]; n++) {
                assert_int_equal(seen[i * BLOCKS * MIXTURE_BLOCK + n], 1);
            }
        }
        free(seen);
    }
}

/* One source is shown in its own order; with two, neighbours are mixed, and another seed mixes
 * otherwise; positions of a run of years are in range. */
static void test_order(void **state)
{
    (void)state;
    struct mixture one, two, other;
    uint64_t n;
    mixture_init(&one, 5, (double[]){0.3}, 1);
    assert_int_equal(mixture_at(&one, 123456789, &n), 0);
    assert_int_equal(n, 123456789);
    mixture_init(&two, 5, (double[]){1, 1}, 2);
    mixture_init(&other, 6, (double[]){1, 1}, 2);
    int changes = 0, differ = 0;
    for (uint64_t p = 0; p < 1000; p++) {
        uint64_t ignored;
        changes += mixture_at(&two, p, &n) != mixture_at(&two, p + 1, &ignored);
        differ += mixture_at(&two, p, &n) != mixture_at(&other, p, &ignored);
    }
    assert_in_range(changes, 400, 600);
    assert_in_range(differ, 400, 600);
    uint64_t far = (uint64_t)1 << 59;
    mixture_at(&two, far, &n);
    assert_in_range(n, far / 2 - MIXTURE_BLOCK, far / 2 + MIXTURE_BLOCK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
