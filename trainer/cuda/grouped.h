/* Products of the experts: FP8 operands in groups, FP32 sums promoted every 128 elements. Groups
 * are told by offset (device, groups + 1 row numbers); they may be unequal and empty, nothing is
 * padded or copied. Launch functions return 0 or an error of the CUDA runtime; they neither
 * allocate nor wait. Operands are in the layouts of quantise.h, 16-byte aligned. */
#ifndef TRAINER_CUDA_GROUPED_H
#define TRAINER_CUDA_GROUPED_H

#include "trainer/cuda/quantise.h"

#ifdef __cplusplus
extern "C" {
#endif

struct grouped {
    const uint32_t *offset;
    uint32_t groups;
    uint32_t rows;   /* of all groups */
    uint32_t blocks; /* to launch: the multiprocessors of the device, or fewer to leave room */
    struct CUstream_st *stream;
};

/* y[rows, n] (BF16) = x[rows, k] w_g^T, w [groups][n, k]: Fprop, and Dgrad with the transposed
 * weights. x: row codes; w: block codes of [groups * n, k]. n and k are multiples of 128. 2 rows n
 * k FLOP; bytes: rows k + groups n k + 2 rows n. */
int grouped_rows(struct grouped g, uint32_t n, uint32_t k, struct fp8_codes x, struct fp8_codes w,
                 uint16_t *y);

/* dw [groups][n, k] (FP32) += alpha dy_g^T x_g: Wgrad. dy: column codes of [rows, n], x: of [rows,
 * k], `padded` as in quantise.h. n and k are multiples of 8. 2 rows n k FLOP; bytes: rows (n + k) +
 * 8 groups n k. */
int grouped_weights(struct grouped g, uint32_t n, uint32_t k, size_t padded, struct fp8_codes dy,
                    struct fp8_codes x, float alpha, float *dw);

#ifdef __cplusplus
}
#endif

#endif
