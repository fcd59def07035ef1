#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/sched_order.h"
#include "lib/mem.h"
#include "tests/unit/random.h"

static size_t comparisons;

static int counting(const void *a, const void *b)
{
    comparisons++;
    return sched_compare_score(a, b);
}

/* As core->queue is kept: jobs come at the end, and the last one fills the place of one that left.
 */
static struct ranked *drained_queue(size_t came, size_t left)
{
    struct ranked *list = mem_alloc_array(came, sizeof *list);
    for (size_t i = 0; i < came; i++) {
        list[i] = (struct ranked){.id = i + 1};
    }
    for (size_t i = 0; i < left; i++) {
        list[i] = list[came - 1 - i];
    }
    return list;
}

static void check(struct ranked *list, size_t count, size_t first)
{
    struct ranked *sorted = mem_alloc_array(count, sizeof *sorted);
    memcpy(sorted, list, count * sizeof *list);
    qsort(sorted, count, sizeof *sorted, sched_compare_score);
    sched_take_first(list, count, first, counting);
    for (size_t i = 0; i < count && i < first; i++) {
        assert_int_equal(list[i].id, sorted[i].id);
    }
    free(sorted);
}

/* The first of the order come to the front in order, whatever the scores and however many. */
static void test_takes_the_first(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        size_t count = random_below(500), first = random_below(600);
        uint64_t kinds = 1 + random_below(50);
        struct ranked *list = mem_alloc_array(count, sizeof *list);
        for (size_t i = 0; i < count; i++) {
            list[i] =
                (struct ranked){.id = 1 + (i * 7919) % 500, .score = (int64_t)random_below(kinds)};
        }
        check(list, count, first);
        free(list);
    }
}

/* Taking few of many compares each job a few times, also in a queue that jobs have left from the
 * front. */
static void test_runs_cost_no_more(void **state)
{
    (void)state;
    for (size_t left = 0; left < 4000; left += 1 + random_below(300)) {
        struct ranked *list = drained_queue(10000, left);
        comparisons = 0;
        check(list, 10000 - left, 64);
        assert_in_range(comparisons, 1, 100000);
        free(list);
    }
}

int main(void)
{
    random_start("sched_order");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_the_first),
        cmocka_unit_test(test_runs_cost_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
