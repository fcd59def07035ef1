/* Rounding to FP8 and E5M6, with real codes. Launch functions return 0 or an error of the CUDA
 * runtime; they neither allocate nor wait. Matrices are dense row-major; rows start on 16 bytes,
 * cols is a multiple of 8. Scales multiply back: x = code * scale; the numbers are those of
 * op.h's grids, bit for bit.
 *
 * Layouts, as cuBLASLt and the grouped product read them:
 *   row codes     code[row * cols + col]               scale[tile * rows + row], tile = col / 128
 *   column codes  code[col * padded + place]           scale[place / 128 * cols + col]
 *                 transposed; place is a row's number when every group begins at a multiple of 128;
 *                 rows between a group's last and that are zero. padded is at least 128 *
 *                 tiles_most(rows, groups), a multiple of 128
 *   block codes   code[row * cols + col]               scale[row / 128 * pitch + col / 128],
 *                 pitch: column tiles rounded up to 4 */
#ifndef TRAINER_CUDA_QUANTISE_H
#define TRAINER_CUDA_QUANTISE_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/fp8.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

struct fp8_codes {
    uint8_t *code; /* NULL: not wanted */
    float *scale;
};

NUMBER_FN size_t block_scale_pitch(size_t cols)
{
    size_t tiles = (cols + 127) / 128;
    return (tiles + 3) / 4 * 4;
}

/* 1 x 128. Bytes an element: 2 + 1, and 4 a tile. */
int quantise_rows(const uint16_t *x, size_t rows, size_t cols, int pow2, struct fp8_codes row,
                  struct CUstream_st *stream);
/* 1 x 128 and 128 x 1 of the same numbers, read once; offset (device): groups + 1 of them. Bytes an
 * element: 2 + 1 + 1. */
int quantise_both(const uint16_t *x, size_t rows, size_t cols, const uint32_t *offset,
                  uint32_t groups, int pow2_row, int pow2_col, struct fp8_codes row,
                  struct fp8_codes col, size_t padded, struct CUstream_st *stream);
/* 128 x 1 of what is kept as row codes. Bytes an element: 1 + 1. */
int quantise_again(struct fp8_codes row, size_t rows, size_t cols, const uint32_t *offset,
                   uint32_t groups, int pow2_col, struct fp8_codes col, size_t padded,
                   struct CUstream_st *stream);
/* 128 x 128 of an FP32 weight: codes for Fprop, and those of its transpose for Dgrad. Bytes an
 * element: 4 + 1 + 1. */
int quantise_weight(const float *w, size_t rows, size_t cols, struct fp8_codes block,
                    struct fp8_codes transposed, struct CUstream_st *stream);
/* E5M6 in 1 x 128 with power-of-two scales, 8 codes in 12 bytes (code i in bits 12 i up): kept[row
 * * cols * 3 / 2], scale[tile * rows + row]; and back. Bytes an element: 2 + 1.5. */
int e5m6_pack(const uint16_t *x, size_t rows, size_t cols, uint32_t *kept, float *scale,
              struct CUstream_st *stream);
int e5m6_unpack(const uint32_t *kept, const float *scale, size_t rows, size_t cols, uint16_t *x,
                struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
