/* Routing index arithmetic against brute force. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"
#include "trainer/route.h"

enum { EXPERTS_MAX = 12, PAIRS_MAX = 400, RANKS_MAX = 5 };

/* Sorting groups pairs by expert and keeps pair order within one; counts and tokens agree; any
 * skew, empty experts too. */
static void test_sort(void **state)
{
    (void)state;
    for (int trial = 0; trial < 500; trial++) {
        size_t experts = 1 + random_below(EXPERTS_MAX), top_k = 1 + random_below(experts);
        size_t pairs = random_below(PAIRS_MAX / top_k) * top_k;
        int32_t expert[PAIRS_MAX];
        uint32_t count[EXPERTS_MAX], place[PAIRS_MAX], token[PAIRS_MAX];
        size_t used = 1 + random_below(experts);
        for (size_t i = 0; i < pairs; i++) {
            expert[i] = (int32_t)random_below(used);
        }
        route_sort(expert, pairs, top_k, experts, count, place, token);
        for (size_t e = 0; e < experts; e++) {
            uint32_t n = 0;
            for (size_t i = 0; i < pairs; i++) {
                n += expert[i] == (int32_t)e;
            }
            assert_int_equal(count[e], n);
        }
        for (size_t i = 0; i < pairs; i++) {
            uint32_t before = 0;
            for (size_t j = 0; j < pairs; j++) {
                before += expert[j] < expert[i] || (expert[j] == expert[i] && j < i);
            }
            assert_int_equal(place[i], before);
            assert_int_equal(token[place[i]], i / top_k);
        }
    }
}

struct row {
    uint32_t source, expert, index;
};

static int order(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int by_expert = (x->expert > y->expert) - (x->expert < y->expert);
    int by_source = (x->source > y->source) - (x->source < y->source);
    int by_index = (x->index > y->index) - (x->index < y->index);
    return by_expert != 0 ? by_expert : by_source != 0 ? by_source : by_index;
}

/* Rows that arrive by source, then expert, merge to (expert, source, index) order; `to` undoes
 * `from`. */
static void test_merge(void **state)
{
    (void)state;
    for (int trial = 0; trial < 500; trial++) {
        size_t sources = 1 + random_below(RANKS_MAX), local = 1 + random_below(EXPERTS_MAX);
        uint32_t counts[RANKS_MAX * EXPERTS_MAX], from[2000], to[2000];
        size_t offset[EXPERTS_MAX + 1], rows = 0;
        struct row *arrival = calloc(2000, sizeof *arrival), *sorted = calloc(2000, sizeof *sorted);
        for (uint32_t s = 0; s < sources; s++) {
            for (uint32_t e = 0; e < local; e++) {
                uint32_t n = random_one_in(3) ? 0 : (uint32_t)random_below(30);
                counts[s * local + e] = n;
                for (uint32_t i = 0; i < n; i++) {
                    arrival[rows++] = (struct row){s, e, i};
                }
            }
        }
        memcpy(sorted, arrival, rows * sizeof *sorted);
        qsort(sorted, rows, sizeof *sorted, order);
        assert_int_equal(route_merge(counts, sources, local, offset, from, to), rows);
        assert_int_equal(offset[0], 0);
        assert_int_equal(offset[local], rows);
        for (size_t r = 0; r < rows; r++) {
            assert_memory_equal(&arrival[from[r]], &sorted[r], sizeof *sorted);
            assert_int_equal(to[from[r]], r);
            assert_true(offset[sorted[r].expert] <= r && r < offset[sorted[r].expert + 1]);
        }
        free(arrival), free(sorted);
    }
}

int main(void)
{
    random_start("test_route");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
