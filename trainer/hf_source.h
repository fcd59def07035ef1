/* One tensor of the model as a Hugging Face folder holds it, read as FP32 rows: plain numbers, or
 * FP8 codes with a scale for each block; by its own name, or as a slice of the tensor in which all
 * experts of a layer are fused. */
#ifndef TRAINER_HF_SOURCE_H
#define TRAINER_HF_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/hf_folder.h"
#include "trainer/tensor_list.h"

enum hf_dtype { HF_F32, HF_BF16, HF_F16, HF_FP8 };

struct hf_source {
    const struct hf_tensor *values; /* borrowed from the folder; NULL: the folder has no such tensor
                                     */
    enum hf_dtype dtype;
    uint64_t first_row; /* of the stored rows; a fused tensor's matrices lie end to end */
    uint32_t cols;
    /* FP8 only */
    float *scale;       /* owned; [blocks down, blocks across] of the matrix the rows are in */
    uint32_t scale_row; /* of the first row within that matrix */
    uint32_t block_rows, block_cols, blocks_across;
};

/* Finds and checks it; *s without values and return 0 when it is not there under any name.
 * ERR_CORRUPT with file and tensor for a shape or dtype that cannot be, a missing scale, or a scale
 * that is negative, infinite or NaN. (One that is 0 is refused with its first code that is not.)
 * Call hf_source_close in any case. */
int hf_source_open(struct hf_source *s, struct hf_folder *f, const struct tensor *want,
                   struct err *err);
/* The same for a tensor of another name than the model's own, which must be of the same shape. */
int hf_source_open_as(struct hf_source *s, struct hf_folder *f, const char *name,
                      const struct tensor *want, struct err *err);
void hf_source_close(struct hf_source *s); /* a zeroed one is fine */

/* Rows [row, row + count) into out [count, cols]; a vector is one row. ERR_CORRUPT for a value that
 * is not finite. */
int hf_source_read(const struct hf_source *s, uint32_t row, uint32_t count, float *out,
                   struct err *err);

#endif
