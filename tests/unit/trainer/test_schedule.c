#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/random.h"
#include "trainer/schedule.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-15)

/* One token a step. */
static struct train_spec spec_of(uint64_t steps, uint64_t warmup, uint64_t constant)
{
    struct train_spec spec = {
        .steps = steps, .tokens = steps, .global_batch = 1, .sequence_length = 1};
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
    assert_near(schedule_lr(&spec, 1, 1), 1e-4);
    assert_near(schedule_lr(&spec, 10, 10), 1e-3);
    assert_near(schedule_lr(&spec, 11, 11), 1e-3);
    assert_near(schedule_lr(&spec, 40, 40), 1e-3);
    assert_near(schedule_lr(&spec, 70, 70), 0.5 * (1e-3 + 1e-4));
    assert_near(schedule_lr(&spec, 100, 100), 1e-4);
    assert_true(schedule_lr(&spec, 41, 41) < 1e-3 && schedule_lr(&spec, 99, 99) > 1e-4);
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
            double lr = schedule_lr(&spec, s, s);
            assert_true(isfinite(lr) && lr > 0 && lr <= 1e-3);
        }
    }
}

static struct train_spec parse(const char *train)
{
    struct jobspec spec;
    struct err err = {0};
    char yaml[2000];
    snprintf(yaml, sizeof yaml, "{name: a, train: {model: m, data: {train: d}, %s}}", train);
    if (jobspec_parse(&spec, yaml, strlen(yaml), "job", "/x", NULL, 0, &err) != 0) {
        fail_msg("%s", err.text);
    }
    struct train_spec t = spec.train;
    jobspec_fini(&spec);
    t.model = t.init_from = NULL;
    t.data = (struct data_spec){0};
    return t;
}

/* The published run by its own numbers (reference deepseek-v3 §1.5): each phase at both of its
 * edges. */
static void test_published(void **state)
{
    (void)state;
    struct train_spec t = parse("tokens: 14.8T, global_batch: 15360, sequence_length: 4096, "
                                "optimizer: {lr: 2.2e-4, warmup_steps: 2000}, "
                                "schedule: deepseek-v3");
    const uint64_t T = 1000000000000u, B = 1000000000u, step = 15360u * 4096;
    assert_near(schedule_lr(&t, 1, 3072 * 4096), 2.2e-4 / 2000);
    assert_near(schedule_lr(&t, 2000, 30 * B), 2.2e-4);
    assert_near(schedule_lr(&t, 2001, 30 * B), 2.2e-4);
    assert_near(schedule_lr(&t, 200000, 10 * T), 2.2e-4);
    assert_true(schedule_lr(&t, 200000, 10 * T + step) < 2.2e-4);
    assert_near(schedule_lr(&t, 200000, 12150 * B), 0.5 * (2.2e-4 + 2.2e-5));
    assert_near(schedule_lr(&t, 200000, 14300 * B), 2.2e-5);
    assert_near(schedule_lr(&t, 200000, 14300 * B + 1), 2.2e-5);
    assert_near(schedule_lr(&t, 200000, 14633 * B), 2.2e-5);
    assert_near(schedule_lr(&t, 200000, 14633 * B + 1), 7.3e-6);
    assert_near(schedule_lr(&t, 200000, 14800 * B), 7.3e-6);

    assert_int_equal(schedule_next(&t, 0, 0).batch, 3072);
    assert_int_equal(schedule_next(&t, 9, 469 * B / 32 - 1).batch, 3072);
    assert_int_equal(schedule_next(&t, 9, 469 * B / 32).batch, 3072 + 384);
    assert_int_equal(schedule_next(&t, 9, 469 * B / 2).batch, (3072 + 15360) / 2);
    assert_int_equal(schedule_next(&t, 9, 469 * B - 1).batch, 15360 - 384);
    assert_int_equal(schedule_next(&t, 9, 469 * B).batch, 15360);
    assert_near(schedule_next(&t, 9, 14300 * B - 1).bias_speed, 1e-3);
    assert_near(schedule_next(&t, 9, 14300 * B).bias_speed, 0);
    assert_near(schedule_next(&t, 9, 10 * T - 1).mtp_lambda, 0.3);
    assert_near(schedule_next(&t, 9, 10 * T).mtp_lambda, 0.1);
    assert_int_equal(schedule_next(&t, 9, 10 * T).context, 4096);
    /* the fact sheet derives 240 to 243 thousand steps from a straight ramp */
    assert_true(t.steps > 240000 && t.steps < 243500);
    assert_true(t.tokens >= 14800 * B && t.tokens < 14800 * B + step);
}

/* Walking step by step gives the length that was derived, and each step begins where the last
 * ended, whatever the ramp and the contexts are. */
static void test_walk(void **state)
{
    (void)state;
    for (int trial = 0; trial < 300; trial++) {
        struct train_spec t = {.sequence_length = 1 + (uint32_t)random_below(64)};
        struct schedule_spec *s = &t.plan;
        uint64_t steps, tokens, n = 1 + random_below(6);
        s->batch.increment = 1 + (uint32_t)random_below(4);
        s->batch.from = random_one_in(4) ? 0 : 1 + (uint32_t)random_below(9);
        t.global_batch = s->batch.from + (uint32_t)n * s->batch.increment;
        s->batch.until = 1 + random_below(5000);
        bool by_tokens = random_one_in(2);
        uint64_t goal = 1 + random_below(by_tokens ? 9000 : 90);
        assert_true(schedule_length(&t, by_tokens ? UINT64_MAX : goal,
                                    by_tokens ? goal : UINT64_MAX, &steps, &tokens));
        uint64_t at = 0, count = 0;
        uint32_t before = 0;
        while (by_tokens ? at < goal : count < goal) {
            struct schedule_point p = schedule_next(&t, count, at);
            assert_true(p.batch >= before && p.batch <= t.global_batch);
            assert_int_equal(p.step, count + 1);
            assert_int_equal(p.tokens, at + (uint64_t)p.batch * t.sequence_length);
            before = p.batch;
            at = p.tokens;
            count++;
        }
        assert_int_equal(count, steps);
        assert_int_equal(at, tokens);
        assert_int_equal(schedule_batch(&t, s->batch.until), t.global_batch);
    }
}

/* Contexts change exactly where they say; the batch stays in sequences of sequence_length. */
static void test_contexts(void **state)
{
    (void)state;
    struct train_spec t = parse("steps: 10, global_batch: 2, sequence_length: 64, schedule: "
                                "{context: [{until: 256, length: 16}, {until: 512, length: 32}]}");
    assert_int_equal(schedule_next(&t, 0, 0).context, 16);
    assert_int_equal(schedule_next(&t, 1, 255).context, 16);
    assert_int_equal(schedule_next(&t, 2, 256).context, 32);
    assert_int_equal(schedule_next(&t, 3, 511).context, 32);
    assert_int_equal(schedule_next(&t, 4, 512).context, 64);
    assert_int_equal(schedule_next(&t, 0, 0).tokens, 128);
    assert_int_equal(schedule_shortest_context(&t), 16);
}

/* The table shows the first and the last step and both sides of every edge. */
static void test_table(void **state)
{
    (void)state;
    struct train_spec t = parse(
        "steps: 40, global_batch: 4, sequence_length: 8, optimizer: {lr: 0.01, warmup_steps: 5}, "
        "mtp_lambda: 0.3, schedule: {bias_update_until: 960, mtp_lambda_until: 640, "
        "mtp_lambda_then: 0.1, batch: {from: 2, until: 160}}");
    char *table = schedule_table(&t);
    static const char *const lines[] = {"           1                   16        2",
                                        "           5 ", "          40 ", "0.3\n", "0.1\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strstr(table, lines[i]) == NULL) {
            fail_msg("no '%s' in\n%s", lines[i], table);
        }
    }
    free(table);
}

int main(void)
{
    random_start("test_schedule");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_points),    cmocka_unit_test(test_corners),
        cmocka_unit_test(test_published), cmocka_unit_test(test_walk),
        cmocka_unit_test(test_contexts),  cmocka_unit_test(test_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
