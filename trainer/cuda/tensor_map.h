/* A matrix of bytes as the copy engine sees it: boxes of 128 columns go to shared memory with the
 * 128-byte swizzle, what lies outside of the matrix arrives as zeros. */
#ifndef TRAINER_CUDA_TENSOR_MAP_H
#define TRAINER_CUDA_TENSOR_MAP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tensor_map { /* a CUtensorMap */
    uint64_t opaque[16] __attribute__((aligned(64)));
};

/* data [rows, cols] bytes, 16-byte aligned, cols a multiple of 16; a box is 128 x box_rows. 0 or an
 * error of the CUDA runtime. */
int tensor_map_make(struct tensor_map *map, const void *data, uint64_t rows, uint64_t cols,
                    uint32_t box_rows);

#ifdef __cplusplus
}
#endif

#endif
