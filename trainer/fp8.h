/* E4M3, the FP8 format of the recipe ("E4M3FN": 1 sign, 4 exponent (bias 7), 3 mantissa bits; no
 * infinity; 0x7F and 0xFF are NaN; largest 448, smallest normal 2^-6, step below it 2^-9), and
 * BF16. Rounding is to nearest, ties to even; E4M3 saturates to 448.
 *
 * One element at a time, without branches, so that loops over them vectorise; every instruction set
 * gives the same bits, since there are only exact operations and single IEEE roundings in here. */
#ifndef TRAINER_FP8_H
#define TRAINER_FP8_H

#include <stdint.h>
#include <string.h>

#define FP8_MAX      448.0f
#define FP8_TILE     128
#define FP8_AMAX_MIN 1e-4f /* a tile's amax is at least this: as the published quantiser has it */

/* The same functions, to the bit, in the kernels of the CUDA back end. */
#ifdef __CUDACC__
#define NUMBER_FN static inline __host__ __device__
#else
#define NUMBER_FN static inline
#endif

NUMBER_FN uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

NUMBER_FN float float_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The nearest number that E4M3 has. Adding and taking away 1.5 * 2^(e + 20), where 2^e is x's
 * binade (2^-6 for those below), lets the FP32 adder round to a multiple of 2^(e - 3). NaN stays
 * NaN. */
NUMBER_FN float fp8_round(float x)
{
    x = x > FP8_MAX ? FP8_MAX : x;
    x = x < -FP8_MAX ? -FP8_MAX : x;
    int32_t binade = (int32_t)(float_bits(x) & 0x7F800000u);
    const int32_t lowest = (127 - 6) << 23;
    binade = binade < lowest ? lowest : binade;
    float magic = float_of_bits(((uint32_t)binade + (20u << 23)) | 0x400000u);
    float y = (x + magic) - magic;
    return float_of_bits((float_bits(y) & 0x7FFFFFFFu) |
                         (float_bits(x) & 0x80000000u)); /* keeps -0 */
}

NUMBER_FN uint8_t fp8_encode(float x)
{
    float y = fp8_round(x);
    uint32_t bits = float_bits(y) & 0x7FFFFFFFu;
    uint32_t sign = float_bits(x) >> 31 << 7;
    float small = float_of_bits(bits < 0x3C800000u ? bits : 0); /* below 2^-6 */
    uint32_t code =
        bits < 0x3C800000u ? (uint32_t)(int32_t)(small * 512.0f) : (bits - (120u << 23)) >> 20;
    code = bits > 0x7F800000u ? 0x7F : code;
    return (uint8_t)(sign | code);
}

NUMBER_FN float fp8_decode(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24;
    uint32_t low = code & 0x7F;
    float small = (float)(int32_t)low * 0x1p-9f;
    uint32_t bits = low < 8 ? float_bits(small) : (low << 20) + (120u << 23);
    bits = low == 0x7F ? 0x7FC00000u : bits;
    return float_of_bits(sign | bits);
}

/* A tile's scale from the bits of its largest |x|; NaN in, NaN out. */
NUMBER_FN float fp8_scale(uint32_t amax_bits)
{
    float amax = float_of_bits(amax_bits);
    amax = amax < FP8_AMAX_MIN ? FP8_AMAX_MIN : amax;
#ifdef MUTANT_fp8_scale
    return amax / 240.0f; /* the largest of another FP8 format */
#else
    return amax / FP8_MAX;
#endif
}

/* The least power of two that brings a tile's largest |x| to 448 or below; NaN for infinity and
 * NaN.
 */
NUMBER_FN float fp8_scale_pow2(uint32_t amax_bits)
{
    uint32_t least = float_bits(FP8_AMAX_MIN);
    uint32_t bits = amax_bits < least ? least : amax_bits;
    /* 448 is 1.75 * 2^8: a larger mantissa carries into the exponent */
    uint32_t power = ((bits + 0x1FFFFFu) & 0x7F800000u) - (8u << 23);
    return float_of_bits(amax_bits >= 0x7F800000u ? 0x7FC00000u : power);
}

NUMBER_FN float bf16_round(float x)
{
    uint32_t u = float_bits(x);
    uint32_t rounded = (u + 0x7FFFu + (u >> 16 & 1)) & 0xFFFF0000u;
    uint32_t nan = (u | 0x400000u) & 0xFFFF0000u;
    return float_of_bits((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

#endif
