/* E4M3 and BF16 rounding against slow references, for every instruction set. */
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
#include "trainer/fp8.h"

/* ---- the reference: the format's definition, in double */

static double value_of(unsigned code)
{
    unsigned exponent = code >> 3 & 15, mantissa = code & 7;
    double magnitude =
        exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, (int)exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

/* The nearest of all finite codes; at a tie the even one; beyond the largest, the largest. */
static unsigned nearest_code(float x)
{
    unsigned sign = signbit(x) ? 0x80 : 0;
    double magnitude = fabs((double)x);
    if (isnan(x)) {
        return sign | 0x7F;
    }
    /* codes are in the order of their values: the last one not above x, or the one after it */
    unsigned low = 0, high = 0x7E;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (value_of(middle) <= magnitude) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if (low == 0x7E) {
        return sign | low;
    }
    double below = magnitude - value_of(low), above = value_of(low + 1) - magnitude;
    return sign | (below < above || (below == above && low % 2 == 0) ? low : low + 1);
}

static float random_float(void)
{
    return float_of_bits((uint32_t)random_next());
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
    for (unsigned code = 0; code < 256; code++) {
        float x = fp8_decode((uint8_t)code);
        if ((code & 0x7F) == 0x7F) {
            assert_true(isnan(x));
            assert_int_equal(signbit(x) != 0, code >> 7);
        } else {
            assert_true((double)x == value_of(code));
            assert_int_equal(signbit(x) != 0, code >> 7);
            assert_int_equal(fp8_encode(x), code);
            assert_int_equal(float_bits(fp8_round(x)), float_bits(x));
        }
    }
    assert_int_equal(fp8_encode(NAN), 0x7F);
    assert_int_equal(fp8_encode(-NAN), 0xFF);
    assert_true(fp8_decode(0x7E) == FP8_MAX);
}

/* Halfway between neighbours the even code wins, and the next float on either side goes to its own
 * side. */
static void test_all_ties(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 0x7E; code++) {
        float half = (float)((value_of(code) + value_of(code + 1)) / 2);
        unsigned even = code % 2 == 0 ? code : code + 1;
        for (unsigned sign = 0; sign <= 0x80; sign += 0x80) {
            float s = sign != 0 ? -1.0f : 1.0f;
            assert_int_equal(fp8_encode(s * half), sign | even);
            assert_int_equal(fp8_encode(s * nextafterf(half, 0)), sign | code);
            assert_int_equal(fp8_encode(s * nextafterf(half, INFINITY)), sign | (code + 1));
        }
    }
}

/* Numbers beyond the largest saturate, infinity included; the smallest vanish with their sign. */
static void test_extremes(void **state)
{
    (void)state;
    const float large[] = {448.0f, 448.1f, 463.9f, 464.0f, 480.0f, 1e6f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(fp8_encode(large[i]), 0x7E);
        assert_int_equal(fp8_encode(-large[i]), 0xFE);
    }
    const float small[] = {0.0f, 1e-45f, 1e-38f, 1e-10f, 0x1p-10f};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        assert_int_equal(fp8_encode(small[i]), 0x00);
        assert_int_equal(fp8_encode(-small[i]), 0x80);
    }
    assert_int_equal(fp8_encode(nextafterf(0x1p-10f, 1)), 0x01);
}

/* Arrays of any floats encode as the reference says and decode back, in every instruction set;
 * rounding equals both together. */
static void test_random_floats(void **state)
{
    (void)state;
    enum { N = 100003 };
    float *x = malloc(N * sizeof *x), *back = malloc(N * sizeof *back);
    uint8_t *code = malloc(N);
    for (size_t i = 0; i < N; i++) {
        /* any bits, and numbers within the format's range */
        x[i] = i % 2 == 0
                   ? random_float()
                   : (float)ldexp((double)(int64_t)random_next(), -63 - (int)random_below(14) + 10);
    }
    EACH_KERNELS(k)
    {
        k->fp8_encode(x, code, N);
        k->fp8_decode(code, back, N);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(code[i], nearest_code(x[i]));
            assert_true(same_bits(back[i], fp8_round(x[i])));
        }
    }
    free(x), free(back), free(code);
}

/* BF16 rounds to the nearest, ties to even, for any float. */
static void test_bf16(void **state)
{
    (void)state;
    for (int i = 0; i < 300000; i++) {
        float x = random_float();
        if (i % 3 == 0) {
            x = float_of_bits((float_bits(x) & 0xFFFF0000u) | 0x8000u); /* a tie */
        }
        float y = bf16_round(x);
        assert_true(isnan(x) == isnan(y));
        if (isnan(x)) {
            continue;
        }
        assert_int_equal(float_bits(y) & 0xFFFF, 0);
        uint32_t below = float_bits(x) & 0xFFFF0000u, above = below + 0x10000u;
        uint32_t low = float_bits(x) & 0xFFFFu;
        uint32_t wanted = low < 0x8000u      ? below
                          : low > 0x8000u    ? above
                          : below & 0x10000u ? above
                                             : below;
        assert_int_equal(float_bits(y), wanted);
    }
}

/* ---- tiles */

struct tiling {
    size_t rows, cols; /* of a tile */
    bool pow2;         /* scales */
};

/* y = x with one scale a tile, from the definition: largest magnitude (at least 1e-4) to 448, or by
 * the least power of two to 448 or below. */
static void quantise_tile_slowly(struct mat x, bool pow2, struct mat y)
{
    float amax = 1e-4f;
    for (size_t i = 0; i < x.rows * x.cols; i++) {
        amax = fmaxf(amax, fabsf(x.data[i / x.cols * x.ld + i % x.cols]));
    }
    float scale = amax / 448.0f;
    for (int e = -40; pow2 && e < 128; e++) {
        if (ldexp(448, e) >= (double)amax) {
            scale = (float)ldexp(1, e);
            break;
        }
    }
    for (size_t i = 0; i < x.rows * x.cols; i++) {
        unsigned code = nearest_code(x.data[i / x.cols * x.ld + i % x.cols] / scale);
        y.data[i / x.cols * y.ld + i % x.cols] = (float)value_of(code) * scale;
    }
}

static void quantise_slowly(struct mat x, struct tiling tile, struct mat y)
{
    for (size_t r = 0; r < x.rows; r += tile.rows) {
        for (size_t c = 0; c < x.cols; c += tile.cols) {
            size_t rows = x.rows - r < tile.rows ? x.rows - r : tile.rows;
            size_t cols = x.cols - c < tile.cols ? x.cols - c : tile.cols;
            quantise_tile_slowly(mat_cols(mat_rows(x, r, rows), c, cols), tile.pow2,
                                 mat_cols(mat_rows(y, r, rows), c, cols));
        }
    }
}

static struct mat random_mat(size_t rows, size_t cols)
{
    struct mat m = mat_of(malloc(rows * (cols + 5) * sizeof(float)), rows, cols);
    m.ld = cols + random_below(6);
    for (size_t i = 0; i < rows * m.ld; i++) {
        /* magnitudes differ by row and column, and some tiles are all tiny */
        double spread = ldexp(1, -(int)random_below(20));
        m.data[i] = (float)((double)(int64_t)random_next() * 0x1p-63 * spread);
    }
    for (size_t i = 0; i < rows && random_one_in(3); i++) {
        memset(m.data + i * m.ld, 0, cols * sizeof(float));
    }
    return m;
}

static void check_tiles(kernel *fn, struct tiling tile, bool items_are_columns, size_t item_rows)
{
    for (int trial = 0; trial < 8; trial++) {
        size_t rows = 1 + random_below(300), cols = 1 + random_below(300);
        struct mat x = random_mat(rows, cols), y = random_mat(rows, cols),
                   z = random_mat(rows, cols);
        struct quantise_args args = {x, y};
        fn(&args, 0, items_are_columns ? cols : (rows + item_rows - 1) / item_rows);
        quantise_slowly(x, tile, z);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < cols; c++) {
                if (!same_bits(y.data[r * y.ld + c], z.data[r * z.ld + c])) {
                    fail_msg("%zux%zu tile of %zux%zu at %zu, %zu: %a, want %a", tile.rows,
                             tile.cols, rows, cols, r, c, (double)y.data[r * y.ld + c],
                             (double)z.data[r * z.ld + c]);
                }
            }
        }
        free(x.data), free(y.data), free(z.data);
    }
}

/* Tiles of 1x128, 128x1 and 128x128, ragged ones included, equal the definition to the bit in every
 * instruction set. */
static void test_tiles(void **state)
{
    (void)state;
    EACH_KERNELS(k)
    {
        check_tiles(k->fp8_row, (struct tiling){1, 128, false}, false, 1);
        check_tiles(k->fp8_col, (struct tiling){128, 1, false}, true, 0);
        check_tiles(k->fp8_row_pow2, (struct tiling){1, 128, true}, false, 1);
        check_tiles(k->fp8_col_pow2, (struct tiling){128, 1, true}, true, 0);
        check_tiles(k->fp8_block, (struct tiling){128, 128, false}, false, 128);
    }
}

/* A power-of-two scale is the least that fits, at its edges too, and NaN for what is not finite. */
static void test_pow2_scale(void **state)
{
    (void)state;
    for (int e = -12; e < 100; e++) {
        float top = ldexpf(448, e);
        const float amax[] = {nextafterf(top, 0), top, nextafterf(top, INFINITY)};
        for (int i = 0; i < 3; i++) {
            assert_true(fp8_scale_pow2(float_bits(amax[i])) == ldexpf(1, i < 2 ? e : e + 1));
        }
    }
    assert_true(fp8_scale_pow2(0) == fp8_scale_pow2(float_bits(1e-4f)));
    assert_true(isnan(fp8_scale_pow2(float_bits(INFINITY))) && isnan(fp8_scale_pow2(0x7FFFFFFF)));
}

/* From rows to columns with power-of-two scales nothing is rounded again that stays normal in both
 * tiles; with exact scales it is. */
static void test_pow2_retile(void **state)
{
    (void)state;
    const struct kernels *k = kernels_best();
    struct mat x = random_mat(128, 128), y = random_mat(128, 128), z = random_mat(128, 128);
    for (size_t i = 0; i < 128 * x.ld; i++) {
        x.data[i] = 1 + (float)random_below(1000) / 1000; /* one binade: scales differ little */
    }
    k->fp8_row_pow2(&(struct quantise_args){x, y}, 0, 128);
    k->fp8_col_pow2(&(struct quantise_args){y, z}, 0, 128);
    size_t moved = 0;
    for (size_t r = 0; r < 128; r++) {
        assert_memory_equal(y.data + r * y.ld, z.data + r * z.ld, 128 * sizeof(float));
    }
    k->fp8_row(&(struct quantise_args){x, y}, 0, 128);
    k->fp8_col(&(struct quantise_args){y, z}, 0, 128);
    for (size_t r = 0; r < 128; r++) {
        moved += memcmp(y.data + r * y.ld, z.data + r * z.ld, 128 * sizeof(float)) != 0;
    }
    assert_true(moved > 0);
    free(x.data), free(y.data), free(z.data);
}

/* A column kernel split between threads at multiples of 64 gives what the whole gives. */
static void test_columns_split(void **state)
{
    (void)state;
    EACH_KERNELS(k)
    {
        struct mat x = random_mat(200, 190), y = random_mat(200, 190), z = random_mat(200, 190);
        k->fp8_col(&(struct quantise_args){x, y}, 0, 190);
        k->fp8_col(&(struct quantise_args){x, z}, 128, 190);
        k->fp8_col(&(struct quantise_args){x, z}, 0, 128);
        for (size_t r = 0; r < 200; r++) {
            assert_memory_equal(y.data + r * y.ld, z.data + r * z.ld, 190 * sizeof(float));
        }
        free(x.data), free(y.data), free(z.data);
    }
}

/* The relative error of a normal element is at most 2^-4: half a step of a 3-bit mantissa. */
static void test_error_bound(void **state)
{
    (void)state;
    struct mat x = random_mat(64, 256), y = random_mat(64, 256);
    kernels_best()->fp8_row(&(struct quantise_args){x, y}, 0, 64);
    for (size_t r = 0; r < 64; r++) {
        for (size_t c = 0; c < 256; c += 128) {
            float amax = 1e-4f;
            for (size_t i = c; i < c + 128; i++) {
                amax = fmaxf(amax, fabsf(x.data[r * x.ld + i]));
            }
            for (size_t i = c; i < c + 128; i++) {
                float v = x.data[r * x.ld + i], error = fabsf(v - y.data[r * y.ld + i]);
                float step = amax / 448 * 0x1p-9f;
                assert_true(error <= fmaxf(fabsf(v) * 0.0626f, step * 0.5001f));
            }
        }
    }
    free(x.data), free(y.data);
}

/* A NaN or an infinity anywhere in a tile comes out as NaN: it must not disappear from a run. */
static void test_poison(void **state)
{
    (void)state;
    const float poison[] = {NAN, INFINITY, -INFINITY};
    EACH_KERNELS(k)
    {
        for (size_t i = 0; i < 3; i++) {
            struct mat x = random_mat(130, 130);
            x.data[100 * x.ld + 77] = poison[i];
            struct quantise_args args = {x, x};
            (i == 0 ? k->fp8_row : i == 1 ? k->fp8_col : k->fp8_block)(&args, 0, i == 2 ? 2 : 130);
            assert_true(isnan(x.data[100 * x.ld + 77]));
            free(x.data);
        }
    }
}

int main(void)
{
    random_start("test_fp8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_codes),     cmocka_unit_test(test_all_ties),
        cmocka_unit_test(test_extremes),      cmocka_unit_test(test_random_floats),
        cmocka_unit_test(test_bf16),          cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_pow2_scale),    cmocka_unit_test(test_pow2_retile),
        cmocka_unit_test(test_columns_split), cmocka_unit_test(test_error_bound),
        cmocka_unit_test(test_poison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
