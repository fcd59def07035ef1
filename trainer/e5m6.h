/* E5M6, the 12-bit format in which the recipe keeps the input of the projection after attention: 1
 * sign, 5 exponent (bias 15) and 6 mantissa bits. The report names the format and no more, so the
 * rest follows IEEE 754, as FP16 does: largest 65024, smallest normal 2^-14, step below it 2^-20,
 * exponent 31 for infinity and NaN. A code shifted left by 4 is the FP16 code of the same number.
 * Rounding is to nearest, ties to even, and saturates: infinity is read but never written.
 *
 * Scales are powers of two, so that going from 1x128 to 128x1 tiles moves exponents and rounds
 * nothing again, except numbers some 2^29 below the largest of their tile.
 *
 * Without branches and exact, as fp8.h. */
#ifndef TRAINER_E5M6_H
#define TRAINER_E5M6_H

#include <stdint.h>

#include "trainer/fp8.h"

#define E5M6_MAX 65024.0f /* (2 - 2^-6) * 2^15 */

/* The nearest number that E5M6 has, by adding and taking away 1.5 * 2^(e + 17): see fp8_round. NaN
 * stays NaN. */
NUMBER_FN float e5m6_round(float x)
{
    x = x > E5M6_MAX ? E5M6_MAX : x;
    x = x < -E5M6_MAX ? -E5M6_MAX : x;
    int32_t binade = (int32_t)(float_bits(x) & 0x7F800000u);
    const int32_t lowest = (127 - 14) << 23;
    binade = binade < lowest ? lowest : binade;
    float magic = float_of_bits(((uint32_t)binade + (17u << 23)) | 0x400000u);
    float y = (x + magic) - magic;
    return float_of_bits((float_bits(y) & 0x7FFFFFFFu) | (float_bits(x) & 0x80000000u));
}

/* The code, in the low 12 bits. */
NUMBER_FN uint16_t e5m6_encode(float x)
{
    float y = e5m6_round(x);
    uint32_t bits = float_bits(y) & 0x7FFFFFFFu;
    uint32_t sign = float_bits(x) >> 31 << 11;
    float small = float_of_bits(bits < 0x38800000u ? bits : 0); /* below 2^-14 */
    uint32_t code =
        bits < 0x38800000u ? (uint32_t)(int32_t)(small * 0x1p20f) : (bits - (112u << 23)) >> 17;
    code = bits > 0x7F800000u ? 0x7E0 : code;
    return (uint16_t)(sign | code);
}

NUMBER_FN float e5m6_decode(uint16_t code)
{
    uint32_t sign = (uint32_t)(code & 0x800) << 20;
    uint32_t low = code & 0x7FF;
    float small = (float)(int32_t)low * 0x1p-20f;
    uint32_t bits = low < 64 ? float_bits(small) : (low << 17) + (112u << 23);
    bits = low >= 0x7C0 ? 0x7F800000u : bits;
    bits = low > 0x7C0 ? 0x7FC00000u : bits;
    return float_of_bits(sign | bits);
}

/* A tile's scale from the bits of its largest |x|, which is taken to be at least FP8_AMAX_MIN: the
 * least power of two that brings it to E5M6_MAX or below. NaN for infinity and NaN. */
NUMBER_FN float e5m6_scale(uint32_t amax_bits)
{
    uint32_t least = float_bits(FP8_AMAX_MIN);
    uint32_t bits = amax_bits < least ? least : amax_bits;
    /* a mantissa above E5M6_MAX's carries into the exponent */
    uint32_t power = ((bits + 0x1FFFFu) & 0x7F800000u) - (15u << 23);
#ifdef MUTANT_e5m6_scale
    power = (bits & 0x7F800000u) - (15u << 23); /* the largest numbers of a tile saturate */
#endif
    return float_of_bits(amax_bits >= 0x7F800000u ? 0x7FC00000u : power);
}

#endif
