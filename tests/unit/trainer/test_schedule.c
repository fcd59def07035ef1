#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "trainer/schedule.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-15)

static struct train_spec spec_of(uint64_t steps, uint64_t warmup, uint64_t constant)
{
    struct train_spec spec = {.steps = steps};
    spec.optimizer.lr = 1e-3;
    spec.optimizer.lr_min = 1e-4;
    spec.optimizer.warmup_steps = warmup;
    spec.optimizer.constant_steps = constant;
    return spec;
}

/* The points that define the curve: first step, end of the warm-up, the plateau, the middle of the
 * cosine, the last step. */
static void test_points(void **state)
{
    (void)state;
    struct train_spec spec = spec_of(100, 10, 30);
    assert_near(schedule_lr(&spec, 1), 1e-4);
    assert_near(schedule_lr(&spec, 10), 1e-3);
    assert_near(schedule_lr(&spec, 11), 1e-3);
    assert_near(schedule_lr(&spec, 40), 1e-3);
    assert_near(schedule_lr(&spec, 70), 0.5 * (1e-3 + 1e-4));
    assert_near(schedule_lr(&spec, 100), 1e-4);
    assert_true(schedule_lr(&spec, 41) < 1e-3 && schedule_lr(&spec, 99) > 1e-4);
}

/* Never above lr, never below 0, and finite where a phase is empty or covers the whole run. */
static void test_corners(void **state)
{
    (void)state;
    static const uint64_t shapes[][3] = {{1, 0, 0}, {1, 1, 0},   {5, 5, 0}, {5, 0, 5},
                                         {5, 3, 2}, {5, 50, 50}, {7, 0, 0}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        struct train_spec spec = spec_of(shapes[k][0], shapes[k][1], shapes[k][2]);
        for (uint64_t s = 1; s <= spec.steps; s++) {
            double lr = schedule_lr(&spec, s);
            assert_true(isfinite(lr) && lr > 0 && lr <= 1e-3);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_points),
                                       cmocka_unit_test(test_corners)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
