/* FP8 codes of eight neighbours, whose tile's largest is found by the 16 threads that hold it. */
#ifndef TRAINER_CUDA_CODES_CUH
#define TRAINER_CUDA_CODES_CUH

#include "trainer/cuda/device.cuh"

#define EIGHT 8 /* elements a thread */

static __device__ __forceinline__ uint32_t top_bits(const float *v)
{
    uint32_t top = 0;
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        uint32_t bits = float_bits(v[i]) & 0x7FFFFFFFu;
        top = bits > top ? bits : top;
    }
    return top;
}

/* Over the 16 lanes of a half warp. */
static __device__ __forceinline__ uint32_t half_warp_top(uint32_t top)
{
#pragma unroll
    for (int lane = 8; lane > 0; lane /= 2) {
        uint32_t other = __shfl_xor_sync(ALL, top, lane);
        top = other > top ? other : top;
    }
    return top;
}

static __device__ __forceinline__ float scale_of(uint32_t top, bool pow2)
{
    return pow2 ? fp8_scale_pow2(top) : fp8_scale(top);
}

static __device__ __forceinline__ uint2 eight_codes(const float *v, float scale)
{
    return make_uint2(fp8_quad(v[0] / scale, v[1] / scale, v[2] / scale, v[3] / scale),
                      fp8_quad(v[4] / scale, v[5] / scale, v[6] / scale, v[7] / scale));
}

static __device__ __forceinline__ void load_codes(float *v, const uint8_t *code, float scale)
{
    const uint2 raw = *(const uint2 *)code;
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        uint32_t word = i < 4 ? raw.x : raw.y;
        v[i] = fp8_decode((uint8_t)(word >> (i % 4 * 8))) * scale;
    }
}

/* Codes and scale of a row's tile into the layout of quantise.h. Every lane of the warp calls it;
 * those outside of the matrix (inside false) hold zeros. */
static __device__ __forceinline__ void save_row_codes(const float *v, bool inside, size_t row,
                                                      size_t rows, size_t col, size_t cols,
                                                      bool pow2, uint8_t *code, float *scales)
{
    float scale = scale_of(half_warp_top(top_bits(v)), pow2);
    if (!inside) {
        return;
    }
    *(uint2 *)(code + row * cols + col) = eight_codes(v, scale);
    if (col % TILE == 0) {
        scales[col / TILE * rows + row] = scale;
    }
}

#endif
