/* The optimiser's kernels. Launch functions return 0 or an error of the CUDA runtime. */
#ifndef TRAINER_CUDA_OPTIMISER_H
#define TRAINER_CUDA_OPTIMISER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

struct adamw_step {
    float grad_scale, lr, eps, weight_decay;
    float keep1, new1, keep2, new2; /* beta, 1 - beta */
    float correct1, correct2;       /* 1 / (1 - beta^t) */
};
struct adamw_step adamw_step(float grad_scale, float lr, double beta1, double beta2, float eps,
                             float weight_decay, float correction1, float correction2);

/* AdamW with FP32 masters and gradients, BF16 moments (rounded to nearest even), and the BF16 copy
 * of the new weights that products read; low NULL: none. Pointers are 16-byte aligned, count is a
 * multiple of 8. Bytes a parameter: 4 + 4 read and 4 written of weight and gradient, 2 + 2 read and
 * written of the moments, 2 of the copy: 22. */
int adamw_bf16(float *weight, uint16_t *m, uint16_t *v, const float *grad, uint16_t *low,
               size_t count, const struct adamw_step *step, struct CUstream_st *stream);

/* sum of x[i]^2 (squares) or of x[i] into *result, in double and a fixed order. partial: 256
 * doubles. All on the device. 4 bytes a number. */
int sum_f32(const float *x, size_t count, int squares, double *partial, double *result,
            struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
