/* The gate of the mixture, FP32, for up to ROUTER_EXPERTS_MAX experts. Launch functions return 0 or
 * an error of the CUDA runtime. A warp works on a token. */
#ifndef TRAINER_CUDA_ROUTER_H
#define TRAINER_CUDA_ROUTER_H

#include "trainer/op.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

#define ROUTER_EXPERTS_MAX 1024

/* op.h's router. count [experts] (NULL: not wanted) becomes how many pairs chose each. Bytes an
 * expert and token: 8; a pair: 8. */
int router_choose(const struct op_router *r, struct mat logits, const float *bias,
                  struct mat scores, int32_t *expert, float *weight, int32_t *count,
                  struct CUstream_st *stream);
/* op.h's router_backward. Bytes an expert and token: 8. */
int router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                    const float *dweight, size_t seq, float balance_scale, const float *fraction,
                    struct mat dlogits, struct CUstream_st *stream);
/* op.h's balance. Bytes an expert and token: 8. */
int router_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                   float *loss, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
