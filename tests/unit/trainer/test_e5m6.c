/* E5M6 with power-of-two scales against slow references, for every instruction set. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"
#include "trainer/cpu/kernels.h"
#include "trainer/e5m6.h"

/* ---- the reference: the format's definition, in double */

#define TOP 0x7BF /* the code of 65024 */

static double value_of(unsigned code)
{
    int exponent = (int)(code >> 6 & 31), mantissa = (int)(code & 63);
    double magnitude =
        exponent == 0 ? ldexp(mantissa, -20) : ldexp(64 + mantissa, exponent - 15 - 6);
    return code & 0x800 ? -magnitude : magnitude;
}

/* The nearest of all finite codes; at a tie the even one; beyond the largest, the largest. */
static unsigned nearest_code(float x)
{
    unsigned sign = signbit(x) ? 0x800 : 0;
    double magnitude = fabs((double)x);
    if (isnan(x)) {
        return sign | 0x7E0;
    }
    unsigned low = 0, high = TOP;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (value_of(middle) <= magnitude) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if (low == TOP) {
        return sign | low;
    }
    double below = magnitude - value_of(low), above = value_of(low + 1) - magnitude;
    return sign | (below < above || (below == above && low % 2 == 0) ? low : low + 1);
}

static bool same_bits(float a, float b)
{
    return float_bits(a) == float_bits(b) || (isnan(a) && isnan(b));
}

#define EACH_KERNELS(k)                                                                            \
    for (size_t k##_index = 0; kernels_at(k##_index) != NULL; k##_index++)                         \
        for (const struct kernels *k = kernels_at(k##_index); k != NULL && k->available(); k = NULL)

/* ---- the codec */

/* Every code decodes to the number that the format's definition gives it, and encodes back to
 * itself. */
static void test_all_codes(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x1000; code++) {
        float x = e5m6_decode((uint16_t)code);
        assert_int_equal(signbit(x) != 0, code >> 11);
        if ((code & 0x7FF) > 0x7C0) {
            assert_true(isnan(x));
        } else if ((code & 0x7FF) == 0x7C0) {
            assert_true(isinf(x));
        } else {
            assert_true((double)x == value_of(code));
            assert_int_equal(e5m6_encode(x), code);
            assert_int_equal(float_bits(e5m6_round(x)), float_bits(x));
        }
    }
    assert_int_equal(e5m6_encode(NAN), 0x7E0);
    assert_int_equal(e5m6_encode(-NAN), 0xFE0);
    assert_true(e5m6_decode(TOP) == E5M6_MAX);
}

/* Halfway between neighbours the even code wins, and the next float on either side goes to its own
 * side. */
static void test_all_ties(void **state)
{
    (void)state;
    for (unsigned code = 0; code < TOP; code++) {
        float half = (float)((value_of(code) + value_of(code + 1)) / 2);
        unsigned even = code % 2 == 0 ? code : code + 1;
        for (unsigned sign = 0; sign <= 0x800; sign += 0x800) {
            float s = sign != 0 ? -1.0f : 1.0f;
            assert_int_equal(e5m6_encode(s * half), sign | even);
            assert_int_equal(e5m6_encode(s * nextafterf(half, 0)), sign | code);
            assert_int_equal(e5m6_encode(s * nextafterf(half, INFINITY)), sign | (code + 1));
        }
    }
}

/* Numbers beyond the largest saturate, infinity included; the smallest vanish with their sign. */
static void test_extremes(void **state)
{
    (void)state;
    const float large[] = {65024.0f, 65024.1f, 65535.9f, 65536.0f, 1e6f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(e5m6_encode(large[i]), TOP);
        assert_int_equal(e5m6_encode(-large[i]), 0x800 | TOP);
    }
    const float small[] = {0.0f, 1e-45f, 1e-38f, 1e-10f, 0x1p-21f};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        assert_int_equal(e5m6_encode(small[i]), 0);
        assert_int_equal(e5m6_encode(-small[i]), 0x800);
    }
    assert_int_equal(e5m6_encode(nextafterf(0x1p-21f, 1)), 1);
}

/* Arrays of any floats encode as the reference says and decode back, in every instruction set;
 * rounding equals both together. */
static void test_random_floats(void **state)
{
    (void)state;
    enum { N = 100003 };
    float *x = malloc(N * sizeof *x), *back = malloc(N * sizeof *back);
    uint16_t *code = malloc(N * sizeof *code);
    EACH_KERNELS(k)
    {
        for (size_t i = 0; i < N; i++) {
            uint32_t bits = (uint32_t)random_next();
            if (i % 2 == 0) { /* where the format has numbers */
                bits = (bits & 0x807FFFFFu) | (uint32_t)(127 - 24 + random_below(43)) << 23;
            }
            x[i] = float_of_bits(bits);
        }
        k->e5m6_encode(x, code, N);
        k->e5m6_decode(code, back, N);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(code[i], nearest_code(x[i]));
            assert_true(same_bits(back[i], e5m6_round(x[i])));
        }
    }
    free(x), free(back), free(code);
}

/* The scale is the least power of two that saturates nothing, on both sides of each step. */
static void test_scale(void **state)
{
    (void)state;
    for (int e = -13; e < 127; e++) {
        float edge = ldexpf(E5M6_MAX, e - 15);
        const float near[] = {nextafterf(edge, 0), edge, nextafterf(edge, INFINITY), ldexpf(1, e)};
        for (size_t i = 0; i < 4; i++) {
            int exponent;
            float scale = e5m6_scale(float_bits(near[i]));
            assert_true(frexpf(scale, &exponent) == 0.5f);
            assert_true(near[i] / scale <= E5M6_MAX);
            assert_true(near[i] / (scale / 2) > E5M6_MAX);
        }
    }
    assert_true(e5m6_scale(0) == e5m6_scale(float_bits(1e-4f)) && e5m6_scale(0) == 0x1p-29f);
    assert_true(isnan(e5m6_scale(float_bits(INFINITY))) && isnan(e5m6_scale(0x7FFFFFFF)));
}

/* ---- tiles */

static struct mat random_mat(size_t rows, size_t cols, int binades)
{
    size_t ld = cols + random_below(6);
    struct mat m = {malloc(rows * ld * sizeof(float)), rows, cols, ld};
    for (size_t i = 0; i < rows * ld; i++) {
        double spread = ldexp(1, -(int)random_below((uint64_t)binades));
        m.data[i] = (float)((double)(int64_t)random_next() * 0x1p-63 * spread);
    }
    return m;
}

static void quantise_slowly(struct mat x, size_t tile_rows, size_t tile_cols, struct mat y)
{
    for (size_t r = 0; r < x.rows; r++) {
        for (size_t c = 0; c < x.cols; c++) {
            size_t r0 = r / tile_rows * tile_rows, c0 = c / tile_cols * tile_cols;
            float amax = 1e-4f;
            for (size_t i = r0; i < r0 + tile_rows && i < x.rows; i++) {
                for (size_t j = c0; j < c0 + tile_cols && j < x.cols; j++) {
                    amax = fmaxf(amax, fabsf(x.data[i * x.ld + j]));
                }
            }
            double scale = exp2(ceil(log2((double)amax / 65024)));
            unsigned code = nearest_code((float)((double)x.data[r * x.ld + c] / scale));
            y.data[r * y.ld + c] = (float)(value_of(code) * scale);
        }
    }
}

static void check_same(struct mat got, struct mat want)
{
    for (size_t r = 0; r < got.rows; r++) {
        for (size_t c = 0; c < got.cols; c++) {
            float g = got.data[r * got.ld + c], w = want.data[r * want.ld + c];
            if (!same_bits(g, w)) {
                fail_msg("%zux%zu at %zu, %zu: %a, want %a", got.rows, got.cols, r, c, (double)g,
                         (double)w);
            }
        }
    }
}

/* Tiles of 1x128 and 128x1, ragged ones, tiny ones and zero ones included, equal the definition to
 * the bit in every instruction set. */
static void test_tiles(void **state)
{
    (void)state;
    EACH_KERNELS(k)
    {
        for (int trial = 0; trial < 4; trial++) {
            size_t rows = 1 + random_below(300), cols = 1 + random_below(300);
            struct mat x = random_mat(rows, cols, 45), y = random_mat(rows, cols, 1),
                       z = random_mat(rows, cols, 1);
            memset(x.data, 0, cols * sizeof(float));
            k->e5m6_row(&(struct quantise_args){x, y}, 0, rows);
            quantise_slowly(x, 1, 128, z);
            check_same(y, z);
            k->e5m6_col(&(struct quantise_args){x, y}, 0, cols);
            quantise_slowly(x, 128, 1, z);
            check_same(y, z);
            free(x.data), free(y.data), free(z.data);
        }
    }
}

/* What the format is for: rows quantised, then columns, are the rows quantised; E4M3 with its
 * scales of any value is not so. */
static void test_no_error_on_transposition(void **state)
{
    (void)state;
    const struct kernels *k = kernels_best();
    struct mat x = random_mat(256, 256, 20), y = random_mat(256, 256, 1);
    struct mat z = random_mat(256, 256, 1);
    k->e5m6_row(&(struct quantise_args){x, y}, 0, 256);
    k->e5m6_col(&(struct quantise_args){y, z}, 0, 256);
    for (size_t r = 0; r < 256; r++) {
        for (size_t c = 0; c < 256; c++) {
            float v = x.data[r * x.ld + c], error = fabsf(v - y.data[r * y.ld + c]);
            /* half a step of a 6-bit mantissa; below 2^-28 of the tile a step is fixed */
            assert_true(error <= fmaxf(fabsf(v) * 0x1p-7f, 0x1p-36f));
        }
        for (size_t c = 0; c < 256; c++) {
            if (fabsf(y.data[r * y.ld + c]) >= 0x1p-28f) {
                assert_true(same_bits(z.data[r * z.ld + c], y.data[r * y.ld + c]));
            }
        }
    }
    size_t moved = 0;
    k->fp8_row(&(struct quantise_args){x, y}, 0, 256);
    k->fp8_col(&(struct quantise_args){y, z}, 0, 256);
    for (size_t i = 0; i < 256; i++) {
        moved += !same_bits(z.data[i * z.ld + i], y.data[i * y.ld + i]);
    }
    assert_true(moved > 0);
    free(x.data), free(y.data), free(z.data);
}

/* A NaN or an infinity anywhere in a tile comes out as NaN: it must not disappear from a run. */
static void test_poison(void **state)
{
    (void)state;
    const float poison[] = {NAN, INFINITY, -INFINITY};
    EACH_KERNELS(k)
    {
        for (size_t i = 0; i < 6; i++) {
            struct mat x = random_mat(130, 130, 9);
            x.data[100 * x.ld + 77] = poison[i % 3];
            (i < 3 ? k->e5m6_row : k->e5m6_col)(&(struct quantise_args){x, x}, 0, 130);
            assert_true(isnan(x.data[100 * x.ld + 77]));
            free(x.data);
        }
    }
}

int main(void)
{
    random_start("test_e5m6");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_codes),
        cmocka_unit_test(test_all_ties),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_random_floats),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_no_error_on_transposition),
        cmocka_unit_test(test_poison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
