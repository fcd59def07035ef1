/* The functions of op.h's table on the GPU: FP32 tensors in device memory, low precision emulated
 * on the grid as the CPU back end does it. Plain, for being right; what a training run is to use
 * stands in the headers of the subjects (norm.h, quantise.h ...), and most of it is the same
 * kernels for another type. All work is queued on cuda_state.stream; sum, sum_squares and
 * copy_to_host wait for it. */
#ifndef TRAINER_CUDA_OPS_H
#define TRAINER_CUDA_OPS_H

#include "trainer/op.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct op_table cuda_ops;

/* memory.cu */
void *ops_alloc(size_t bytes);
void ops_release(void *p);
void ops_copy_to_host(void *host, const void *p, size_t bytes);
void ops_copy_from_host(void *p, const void *host, size_t bytes);
void ops_scale(float *x, float factor, size_t count);
void ops_copy(struct mat x, struct mat y);
void ops_zero(struct mat y);
void ops_add(struct mat x, struct mat y, struct mat out);
/* optimiser.cu */
double ops_sum_squares(const float *x, size_t count);
double ops_sum(const float *x, size_t count);
void ops_adamw(float *weight, float *m, float *v, const float *grad, size_t count, float grad_scale,
               float lr, double beta1, double beta2, float eps, float weight_decay,
               float correction1, float correction2);
/* quantise.cu */
void ops_quantise(enum op_format format, struct op_groups groups, struct mat x, struct mat y);
/* linear.c */
void ops_linear(struct op_groups groups, struct mat x, const float *w, struct mat y);
void ops_linear_dx(struct op_groups groups, struct mat dy, const float *w, struct mat dx, bool add);
void ops_linear_dw(struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw);
/* embed.cu */
void ops_embed(const int32_t *token, const float *table, struct mat y);
void ops_embed_backward(const int32_t *token, struct mat dy, float alpha, float *dtable);
/* norm.cu */
void ops_rmsnorm(struct mat x, const float *w, float eps, struct mat y, float *rstd);
void ops_rmsnorm_backward(struct mat x, const float *w, const float *rstd, struct mat dy,
                          struct mat dx, bool add, float alpha, float *dw);
/* rotary.cu */
void ops_rope(struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
              const float *table, bool inverse);
void ops_keys(struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads,
              struct op_heads k);
void ops_keys_backward(struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim,
                       struct mat dshared);
/* attention.c */
size_t ops_attention_scratch(const struct op_attention *a);
void ops_attention(const struct op_attention *a, struct op_heads q, struct op_heads k,
                   struct op_heads v, struct op_heads out, float *lse, float *scratch);
void ops_attention_backward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                            struct op_heads v, struct op_heads out, const float *lse,
                            struct op_heads dout, struct op_heads dq, struct op_heads dk,
                            struct op_heads dv, float *scratch);
/* swiglu.cu */
void ops_swiglu(struct mat gu, struct mat out);
void ops_swiglu_backward(struct mat gu, struct mat dout, struct mat dgu, struct mat out);
/* router.cu */
void ops_router(const struct op_router *r, struct mat logits, const float *bias, struct mat scores,
                int32_t *expert, float *weight);
void ops_router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                         const float *dweight, size_t seq, float balance_scale,
                         const float *fraction, struct mat dlogits);
void ops_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                 float *loss);
/* permute.cu */
void ops_gather(struct mat x, const uint32_t *index, struct mat y);
void ops_combine(struct mat y, const uint32_t *place, const float *weight, size_t top_k,
                 struct mat out);
void ops_combine_backward(struct mat dout, struct mat y, const uint32_t *place, const float *weight,
                          size_t top_k, struct mat dy, float *dweight);
/* loss.cu */
void ops_cross_entropy(struct mat logits, const int32_t *target, float scale, float *loss);

#ifdef __cplusplus
}
#endif

#endif
