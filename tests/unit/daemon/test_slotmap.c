#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/slotmap.h"

/* An id finds its item until it is removed, and nothing after, also when its slot has a new tenant.
 */
static void test_ids_are_never_reused(void **state)
{
    (void)state;
    struct slotmap m = {0};
    int a, b;
    uint64_t first = slotmap_add(&m, &a);
    assert_true(first != 0);
    assert_ptr_equal(slotmap_find(&m, first), &a);
    slotmap_remove(&m, first);
    uint64_t second = slotmap_add(&m, &b);
    assert_true(second != first);
    assert_null(slotmap_find(&m, first));
    assert_ptr_equal(slotmap_find(&m, second), &b);
    slotmap_remove(&m, first); /* an old id removes nobody else */
    assert_ptr_equal(slotmap_find(&m, second), &b);
    assert_null(slotmap_find(&m, 0));
    assert_null(slotmap_find(&m, UINT64_MAX));
    slotmap_fini(&m);
}

/* Thousands of items, every third removed and replaced: each id finds its own item and no other. */
static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static int items[COUNT];
    static uint64_t ids[COUNT];
    struct slotmap m = {0};
    for (int i = 0; i < COUNT; i++) {
        ids[i] = slotmap_add(&m, &items[i]);
    }
    for (int i = 0; i < COUNT; i += 3) {
        slotmap_remove(&m, ids[i]);
    }
    for (int i = 0; i < COUNT; i += 3) {
        ids[i] = slotmap_add(&m, &items[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_ptr_equal(slotmap_find(&m, ids[i]), &items[i]);
    }
    assert_int_equal(m.items, COUNT);
    assert_int_equal(m.count, COUNT); /* slots are used again */
    slotmap_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_never_reused),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests_name("slotmap", tests, NULL, NULL);
}
