#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/op_fixture.h"
#include "trainer/half.h"
#include "trainer/hf_encode.h"

/* Every one of the 65536 F16 codes against its value by definition. */
static void test_f16(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 65536; code++) {
        uint32_t exponent = code >> 10 & 31, mantissa = code & 1023;
        double sign = code >> 15 ? -1 : 1;
        float got = f16_decode((uint16_t)code);
        if (exponent == 31) {
            assert_true(mantissa == 0 ? isinf(got) : isnan(got));
        } else {
            double want =
                exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, (int)exponent - 25);
            assert_true((double)got == sign * want);
        }
        assert_int_equal(signbit(got) != 0, code >> 15);
    }
}

/* BF16 codes decode to themselves; what lies between two goes to the nearer one, a tie to the even
 * code. */
static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x7F7F; code++) {
        float low = bf16_decode((uint16_t)code);
        float high = bf16_decode((uint16_t)(code + 1));
        uint32_t half = code << 16 | 0x8000;
        assert_int_equal(bf16_encode(low), code);
        assert_int_equal(bf16_encode(-low), code | 0x8000);
        assert_true(low < high);
        assert_int_equal(bf16_encode(float_of_bits(half)), code + (code & 1));
        assert_int_equal(bf16_encode(float_of_bits(half - 1)), code);
        assert_int_equal(bf16_encode(float_of_bits(half + 1)), code + 1);
    }
    float x[] = {1, 2};
    uint16_t out[2];
    assert_true(hf_encode_bf16(x, 2, out));
    x[1] = 3.4e38f; /* an FP32 number, beyond BF16's largest */
    assert_false(hf_encode_bf16(x, 2, out));
    x[1] = NAN;
    assert_false(hf_encode_bf16(x, 2, out));
}

/* Codes and scales of a matrix of any shape decode to exactly what FP8 training computes with. */
static void test_fp8(void **state)
{
    (void)state;
    random_start("hf encode");
    const struct op_table *op = op_cpu(1);
    for (int round = 0; round < 200; round++) {
        uint32_t rows = 1 + (uint32_t)random_below(300);
        uint32_t cols = 1 + (uint32_t)random_below(300);
        size_t n = (size_t)rows * cols;
        float *x = random_floats(n, -1, 1);
        for (size_t i = 0; i < n; i++) { /* all magnitudes, and zeros */
            x[i] = random_one_in(8) ? 0 : ldexpf(x[i], (int)random_below(40) - 30);
        }
        float *want = calloc(n, sizeof *want);
        uint8_t *codes = calloc(n, 1);
        float scales[4];
        op->quantise(OP_FP8_BLOCK, (struct op_groups){0}, mat_of(x, rows, cols),
                     mat_of(want, rows, cols));
        for (uint32_t r = 0; r < rows; r += 128) {
            uint32_t band = rows - r < 128 ? rows - r : 128;
            assert_true(hf_encode_fp8(x + (size_t)r * cols, band, cols, codes, scales));
            for (uint32_t i = 0; i < band; i++) {
                for (uint32_t c = 0; c < cols; c++) {
                    float got = fp8_decode(codes[(size_t)i * cols + c]) * scales[c / 128];
                    assert_true(got == want[(size_t)(r + i) * cols + c]);
                }
            }
        }
        x[random_below(n)] = random_one_in(2) ? INFINITY : NAN;
        bool finite = true;
        for (uint32_t r = 0; r < rows; r += 128) {
            uint32_t band = rows - r < 128 ? rows - r : 128;
            finite = hf_encode_fp8(x + (size_t)r * cols, band, cols, codes, scales) && finite;
        }
        assert_false(finite);
        free(x);
        free(want);
        free(codes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_fp8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
