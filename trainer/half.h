/* Sixteen-bit floating point, to FP32 and from it. */
#ifndef TRAINER_HALF_H
#define TRAINER_HALF_H

#include <stdint.h>

#include "trainer/fp8.h"

NUMBER_FN float bf16_decode(uint16_t code)
{
    return float_of_bits((uint32_t)code << 16);
}

/* To nearest, ties to even; what is too large for BF16 becomes infinite. */
NUMBER_FN uint16_t bf16_encode(float x)
{
    return (uint16_t)(float_bits(bf16_round(x)) >> 16);
}

/* IEEE binary16: 5 exponent bits (bias 15), 10 mantissa bits. Every one is an FP32 number. */
NUMBER_FN float f16_decode(uint16_t code)
{
    uint32_t sign = (uint32_t)(code & 0x8000) << 16;
    uint32_t exponent = code >> 10 & 31;
    uint32_t mantissa = code & 0x3FF;
    if (exponent == 0) {
        return float_of_bits(sign | float_bits((float)mantissa * 0x1p-24f));
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    return float_of_bits(sign | exponent << 23 | mantissa << 13);
}

#endif
