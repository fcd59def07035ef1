#include "trainer/hf_encode.h"

#include <math.h>
#include <string.h>

#include "trainer/fp8.h"
#include "trainer/half.h"

bool hf_encode_bf16(const float *x, size_t n, uint16_t *out)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        out[i] = bf16_encode(x[i]);
        finite = finite && (out[i] & 0x7F80) != 0x7F80;
    }
    return finite;
}

bool hf_encode_f32(const float *x, size_t n, float *out)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
    }
    memcpy(out, x, n * sizeof *out);
    return finite;
}

bool hf_encode_fp8(const float *x, uint32_t rows, uint32_t cols, uint8_t *codes, float *scales)
{
    bool finite = true;
    for (uint32_t c = 0; c < cols; c += FP8_TILE) {
        uint32_t end = cols - c < FP8_TILE ? cols : c + FP8_TILE;
        uint32_t top = 0; /* the bits of magnitudes are in the order of magnitudes */
        for (uint32_t r = 0; r < rows; r++) {
            for (uint32_t k = c; k < end; k++) {
                uint32_t bits = float_bits(x[(size_t)r * cols + k]) & 0x7FFFFFFFu;
                top = bits > top ? bits : top;
            }
        }
        finite = finite && isfinite(float_of_bits(top));
        float scale = fp8_scale(top);
        scales[c / FP8_TILE] = scale;
        for (uint32_t r = 0; r < rows; r++) {
            for (uint32_t k = c; k < end; k++) {
                size_t i = (size_t)r * cols + k;
                codes[i] = fp8_encode(x[i] / scale);
            }
        }
    }
    return finite;
}
