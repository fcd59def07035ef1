#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/rng.h"

/* Philox4x32-10 gives the known answers that its authors publish (Random123, kat_vectors). */
static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        rng_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
    assert_true(rng_stream("") == 0xcbf29ce484222325u);
    assert_true(rng_stream("a") == 0xaf63dc4c8601ec8cu);
}

/* Any part of a stream equals the same part of the whole. */
static void test_parts(void **state)
{
    (void)state;
    enum { N = 101 };
    float whole[N], part[N];
    rng_normal(7, 99, 0, N, 0.5, whole);
    for (size_t first = 0; first < N; first += 3) {
        for (size_t count = 0; first + count <= N; count += 7) {
            rng_normal(7, 99, first, count, 0.5, part);
            assert_memory_equal(part, whole + first, count * sizeof *part);
        }
    }
}

/* Normals have the moments they should (a million of them: 5 standard errors), and streams and
 * seeds differ. */
static void test_moments(void **state)
{
    (void)state;
    enum { N = 1000000 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    rng_normal(1, 1, 0, N, 2.0, x);
    rng_normal(1, 2, 0, N, 2.0, y);
    double mean = 0, square = 0, fourth = 0, cross = 0;
    for (size_t i = 0; i < N; i++) {
        double v = (double)x[i] / 2;
        mean += v / N;
        square += v * v / N;
        fourth += v * v * v * v / N;
        cross += v * (double)y[i] / 2 / N;
    }
    assert_true(fabs(mean) < 5e-3);
    assert_true(fabs(square - 1) < 5 * 1.5e-3);
    assert_true(fabs(fourth - 3) < 5 * 1e-2);
    assert_true(fabs(cross) < 5e-3);
    rng_normal(2, 1, 0, N, 2.0, y);
    assert_true(memcmp(x, y, N * sizeof *x) != 0);
    free(x), free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
