/* The vectorised loops of the CPU back end. One source (kernels_base.c) is compiled once for each
 * instruction set and the best one the machine has is chosen at run time; all give the same bits. A
 * kernel does items [first, last) of the work that its arguments describe, so that a caller can
 * share it out among threads. */
#ifndef TRAINER_CPU_KERNELS_H
#define TRAINER_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/op.h"

typedef void kernel(const void *args, size_t first, size_t last);

struct quantise_args {
    struct mat x, y;
};
struct add_args {
    struct mat x, y, out;
};
struct norm_args {
    struct mat x, y;
    const float *w;
    float *rstd, eps;
};
struct norm_backward_args {
    struct mat x, dy, dx;
    const float *w, *rstd;
    float *dw, alpha;
    bool add;
};
struct keys_args {
    struct op_heads nope, k;
    size_t nope_dim, heads;
    struct mat shared;
};
struct swiglu_args {
    struct mat gu, out, dout, dgu;
};
struct combine_args {
    struct mat y, out; /* backward: out is dout */
    const uint32_t *place;
    const float *weight;
    size_t top_k;
    struct mat dy;
    float *dweight;
};
struct loss_args {
    struct mat logits;
    const int32_t *target;
    float scale, *loss;
};
struct adamw_args {
    float *weight, *m, *v;
    const float *grad;
    float grad_scale, lr;
    double beta1, beta2;
    float eps, weight_decay, correction1, correction2;
};
struct embed_args {
    const int32_t *token;
    struct mat dy;
    float alpha, *table;
};
/* A block of attention scores: row i belongs to query first_key + i and may look at keys [0,
 * first_key + i]. */
struct scores_args {
    struct mat s, ds; /* [queries, keys] */
    size_t first_key;
    float *lse;         /* of the queries: written by softmax, read by probabilities */
    const float *delta; /* of the queries: dout . out */
    float scale;
    bool bf16;
};

struct kernels {
    const char *name;
    bool (*available)(void);
    /* items are rows */
    kernel *bf16, *fp8_row, *fp8_row_pow2, *e5m6_row, *add, *norm, *norm_dx, *keys, *keys_backward,
        *swiglu, *swiglu_backward, *combine, *combine_backward, *cross_entropy, *sigmoid;
    kernel *pack_bf16, *pack_fp8, *pack_fp8_pow2, *pack_e5m6;
    kernel *unpack_bf16, *unpack_fp8, *unpack_fp8_pow2, *unpack_e5m6;
    kernel *softmax, *probabilities, *score_gradient;
    /* items are columns */
    kernel *fp8_col, *fp8_col_pow2, *e5m6_col, *norm_dw, *embed_backward;
    /* items are blocks of 128 rows */
    kernel *fp8_block;
    /* items are elements */
    kernel *adamw;
    void (*scale)(float *x, float factor, size_t count);
    double (*sum_squares)(const float *x, size_t count);
    double (*sum)(const float *x, size_t count);
    float (*dot)(const float *x, const float *y, size_t count);
    /* y[r * ld_y + k] = dot(row r of x, row k of w), to the bit; w is [outputs, n]. Each row of w
     * is read once for two of x. */
    void (*products)(const float *x, size_t ld_x, size_t rows, const float *w, size_t n,
                     size_t outputs, float *y, size_t ld_y);
    /* y[0..n) = the sum of a[i] * row i of `rows`, added in that order. */
    void (*weighted_sum)(const float *a, size_t count, const float *rows, size_t ld, size_t n,
                         float *y);
    void (*fp8_encode)(const float *x, uint8_t *code, size_t count);
    void (*fp8_decode)(const uint8_t *code, float *x, size_t count);
    void (*e5m6_encode)(const float *x, uint16_t *code, size_t count);
    void (*e5m6_decode)(const uint16_t *code, float *x, size_t count);
    void (*exp)(const float *x, float *y, size_t count);
};

/* The fastest this machine runs, or the one that DS_CPU_KERNELS names (portable, avx2, avx512):
 * they give the same bits, which this lets one check. A name that is none ends the process. */
const struct kernels *kernels_best(void);
/* Every one compiled in, slowest first; NULL after the last. */
const struct kernels *kernels_at(size_t index);

#endif
