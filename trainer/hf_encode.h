/* FP32 rows -> what a file holds. Pure. */
#ifndef TRAINER_HF_ENCODE_H
#define TRAINER_HF_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Out of BF16's range becomes infinite: false when that, or a NaN, is among the results. */
bool hf_encode_bf16(const float *x, size_t n, uint16_t *out);
bool hf_encode_f32(const float *x, size_t n, float *out);
/* One row of 128x128 blocks, the last one of a matrix may have fewer rows: codes [rows, cols], and
 * a scale for each block, ceil(cols / 128). The numbers that code * scale gives are those that
 * training in FP8 computes with (op.h's OP_FP8_BLOCK). False when an x is not finite. */
bool hf_encode_fp8(const float *x, uint32_t rows, uint32_t cols, uint8_t *codes, float *scales);

#endif
