#include "tests/unit/core/world.h"

static uint64_t seed = 1;
static uint64_t roll(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

/* A map under random sets and removals holds what a plain array holds. */
static void test_map(void **state)
{
    (void)state;
    enum { IDS = 400 };
    static char values[IDS];
    bool there[IDS] = {0};
    struct map map = {0};
    size_t count = 0;
    assert_null(map_get(&map, 5));
    map_remove(&map, 5);
    for (int i = 0; i < 20000; i++) {
        uint64_t id = roll() % (IDS - 1) + 1;
        if (roll() % 2 == 0) {
            count += !there[id];
            map_set(&map, id, &values[id]);
            there[id] = true;
        } else {
            count -= there[id];
            map_remove(&map, id);
            there[id] = false;
        }
        assert_int_equal(map.count, count);
        for (uint64_t j = 1; i % 500 == 0 && j < IDS; j++) {
            assert_ptr_equal(map_get(&map, j), there[j] ? &values[j] : NULL);
        }
    }
    assert_null(map_get(&map, 0));
    map_fini(&map);
}

/* Timers fire in the order of (time, kind, id), not before their time. */
static void test_timers(void **state)
{
    (void)state;
    struct timers timers = {0};
    assert_true(timers_next(&timers) == INT64_MAX);
    struct timer last = {0}, timer;
    for (int i = 0; i < 3000; i++) {
        timers_set(&timers, (enum timer_kind)(roll() % 4), roll() % 10,
                   (int64_t)(roll() % 500) + 1);
    }
    assert_false(timers_take(&timers, 0, &timer));
    int taken = 0;
    for (int64_t now = 1; now <= 500; now++) {
        while (timers_take(&timers, now, &timer)) {
            assert_int_equal(timer.at_ms, now);
            bool later = timer.at_ms > last.at_ms || timer.kind > last.kind ||
                         (timer.kind == last.kind && timer.id >= last.id);
            assert_true(later);
            last = timer;
            taken++;
        }
    }
    assert_int_equal(taken, 3000);
    timers_fini(&timers);
}

/* Effects own what they point to. */
static void test_effect_list(void **state)
{
    (void)state;
    struct effect_list list = {0};
    char text[] = "abc";
    uint32_t numbers[] = {1, 2};
    const char *copy = effect_list_text(&list, text);
    const uint32_t *more = effect_list_u32(&list, numbers, 2);
    text[0] = 'x';
    numbers[0] = 9;
    assert_string_equal(copy, "abc");
    assert_int_equal(more[0], 1);
    assert_null(effect_list_text(&list, NULL));
    assert_null(effect_list_u32(&list, numbers, 0));
    for (int i = 0; i < 100; i++) {
        effect_list_add(&list, EFFECT_EVENT, (session_id)i);
    }
    assert_int_equal(list.items[99].session, 99);
    effect_list_reset(&list);
    assert_int_equal(list.count, 0);
    effect_list_fini(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_effect_list),
    };
    return cmocka_run_group_tests_name("core/containers", tests, NULL, NULL);
}
