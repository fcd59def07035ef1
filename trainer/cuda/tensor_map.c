#include "trainer/cuda/tensor_map.h"

#include <string.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                           const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                           const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                           CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

int tensor_map_make(struct tensor_map *map, const void *data, uint64_t rows, uint64_t cols,
                    uint32_t box_rows)
{
    static encode_fn *encode; /* the driver's, asked for by way of the runtime */
    if (encode == NULL) {
        enum cudaDriverEntryPointQueryResult found;
        void *entry = NULL;
        cudaError_t rc = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                          cudaEnableDefault, &found);
        if (rc != cudaSuccess || found != cudaDriverEntryPointSuccess) {
            return rc != cudaSuccess ? (int)rc : (int)cudaErrorSymbolNotFound;
        }
        *(void **)&encode = entry;
    }
    CUtensorMap made;
    const cuuint64_t size[2] = {cols, rows}, pitch[1] = {cols};
    const cuuint32_t box[2] = {128, box_rows}, step[2] = {1, 1};
    CUresult rc =
        encode(&made, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, (void *)(uintptr_t)data, size, pitch, box,
               step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    _Static_assert(sizeof made == sizeof *map, "a tensor map has 128 bytes");
    memcpy(map, &made, sizeof *map);
    return (int)rc; /* the codes mean the same to the runtime */
}
