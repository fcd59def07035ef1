#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "trainer/rope.h"

/* DeepSeek-V3's published numbers. */
static struct model_config published(bool yarn)
{
    struct model_config c = {.qk_nope_head_dim = 128, .qk_rope_head_dim = 64, .rope_theta = 10000};
    c.rope.yarn = yarn;
    c.rope.factor = 40;
    c.rope.beta_fast = 32;
    c.rope.beta_slow = 1;
    c.rope.mscale = c.rope.mscale_all_dim = 1;
    c.rope.original_max_position_embeddings = 4096;
    return c;
}

/* 192^-0.5 without YaRN; times (0.1 ln 40 + 1)^2 with it. */
static void test_softmax_scale(void **state)
{
    (void)state;
    struct model_config c = published(false);
    assert_true(fabs(rope_softmax_scale(&c) - 0.0721688) < 1e-7);
    c = published(true);
    assert_true(fabs(rope_softmax_scale(&c) - 0.135234) < 1e-6);
    c.rope.mscale_all_dim = 0;
    assert_true(fabs(rope_softmax_scale(&c) - 0.0721688) < 1e-7);
}

static double angle_at(const float *table, size_t position, size_t pair)
{
    const float *cs = table + (position * 32 + pair) * 2;
    return atan2((double)cs[1], (double)cs[0]);
}

/* Pair i turns by theta^(-2i/d) a position; under YaRN pairs up to 10 keep their frequency, from 23
 * on it is divided by 40, and between the two it ramps. */
static void test_frequencies(void **state)
{
    (void)state;
    enum { POSITIONS = 4 };
    float plain[POSITIONS * 64], yarn[POSITIONS * 64];
    struct model_config c = published(false);
    rope_table(&c, POSITIONS, plain);
    c = published(true);
    rope_table(&c, POSITIONS, yarn);
    for (size_t i = 0; i < 32; i++) {
        double f = pow(10000, -2.0 * (double)i / 64);
        double share = i <= 10 ? 0 : i >= 23 ? 1 : ((double)i - 10) / 13;
        for (size_t t = 0; t < POSITIONS; t++) {
            assert_true(fabs(angle_at(plain, t, i) - (double)t * f) < 1e-6);
            assert_true(
                fabs(angle_at(yarn, t, i) - (double)t * (f / 40 * share + f * (1 - share))) < 1e-6);
        }
        assert_true(fabs(hypot((double)yarn[(32 + i) * 2], (double)yarn[(32 + i) * 2 + 1]) - 1) <
                    1e-6);
    }
}

/* The attention factor: the quotient of the two mscales, or 0.1 ln s + 1 where they are not both
 * given. */
static void test_magnitude(void **state)
{
    (void)state;
    float table[64];
    struct model_config c = published(true);
    c.rope.mscale = 0.5;
    rope_table(&c, 1, table);
    assert_true(fabs((double)table[0] - (0.05 * log(40) + 1) / (0.1 * log(40) + 1)) < 1e-6);
    c.rope.mscale = 0;
    rope_table(&c, 1, table);
    assert_true(fabs((double)table[0] - (0.1 * log(40) + 1)) < 1e-6);
}

/* Frequencies and magnitude as transformers 5.23 computes them (ROPE_INIT_FUNCTIONS["yarn"]), for
 * contexts extended from short ones. */
static void test_transformers(void **state)
{
    (void)state;
    static const double inv_freq[2][8] = {
        {1.0, 0.223994657, 0.0416666642, 0.00395284733, 0.00124999997, 0.000395284733,
         0.000125000006, 3.95284733e-05},
        {1.0, 0.21147424, 0.0301869176, 0.00331009529},
    };
    static const double magnitude[2] = {1.0, 1.0964366557087233};
    struct model_config c[2] = {{.qk_rope_head_dim = 16, .rope_theta = 10000},
                                {.qk_rope_head_dim = 8, .rope_theta = 500}};
    c[0].rope = (struct rope_scaling){true, 8, 32, 1, 1, 1, 64};
    c[1].rope = (struct rope_scaling){true, 40, 20, 0.5, 0.7, 0.4, 1024};
    for (size_t k = 0; k < 2; k++) {
        float table[2 * 16];
        size_t pairs = c[k].qk_rope_head_dim / 2;
        rope_table(&c[k], 2, table);
        for (size_t i = 0; i < pairs; i++) {
            double re = (double)table[(pairs + i) * 2], im = (double)table[(pairs + i) * 2 + 1];
            assert_true(fabs(atan2(im, re) - inv_freq[k][i]) < 1e-6 * inv_freq[k][i] + 1e-9);
            assert_true(fabs(hypot(re, im) - magnitude[k]) < 1e-6);
        }
    }
}

/* Far out the angle is the FP32 product of position and FP32 frequency, as in the published
 * implementations. */
static void test_far_positions(void **state)
{
    (void)state;
    enum { POSITIONS = 100001 };
    struct model_config c = published(false);
    float *table = malloc((size_t)POSITIONS * 64 * sizeof *table);
    rope_table(&c, POSITIONS, table);
    for (size_t i = 0; i < 32; i++) {
        float angle = 100000.0f * (float)pow(10000, -2.0 * (double)i / 64);
        assert_true(fabs((double)table[((size_t)100000 * 32 + i) * 2] - cos((double)angle)) < 1e-6);
    }
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax_scale), cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_magnitude),     cmocka_unit_test(test_transformers),
        cmocka_unit_test(test_far_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
