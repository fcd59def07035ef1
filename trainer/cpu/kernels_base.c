/* The loops in portable C. kernels_avx2.c and kernels_avx512.c compile this file again for their
 * instruction sets. */
#ifndef KERNELS
#define KERNELS           kernels_base
#define KERNELS_NAME      "portable"
#define KERNELS_AVAILABLE 1
#endif

#include <math.h>

#include "trainer/cpu/kernels_decode.h"
#include "trainer/cpu/kernels_layer.h"
#include "trainer/cpu/kernels_pack.h"

/* ---- scores: softmax with what attention and the loss need around it */

static void exp_shifted(float *x, size_t n, float shift)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = exp_fast(x[i] - shift);
    }
}

static void round_bf16(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = bf16_round(x[i]);
    }
}

static void softmax(const void *args, size_t first, size_t last)
{
    const struct scores_args *a = args;
    for (size_t r = first; r < last; r++) {
        float *s = row_of(a->s, r);
        size_t n = a->first_key + r + 1;
        float top = max_of(s, n);
        exp_shifted(s, n, top);
        float sum = sum_of(s, n), share = 1.0f / sum;
        for (size_t i = 0; i < n; i++) {
            s[i] *= share;
        }
        memset(s + n, 0, (a->s.cols - n) * sizeof *s);
        if (a->bf16) {
            round_bf16(s, n);
        }
        a->lse[r] = top + logf(sum);
    }
}

static void probabilities(const void *args, size_t first, size_t last)
{
    const struct scores_args *a = args;
    for (size_t r = first; r < last; r++) {
        float *s = row_of(a->s, r);
        size_t n = a->first_key + r + 1;
        exp_shifted(s, n, a->lse[r]);
        memset(s + n, 0, (a->s.cols - n) * sizeof *s);
    }
}

/* ds = p * (dp - delta) * scale, then p is rounded for its own product. */
static void score_gradient(const void *args, size_t first, size_t last)
{
    const struct scores_args *a = args;
    for (size_t r = first; r < last; r++) {
        float *p = row_of(a->s, r), *ds = row_of(a->ds, r);
        float delta = a->delta[r], scale = a->scale;
        for (size_t i = 0; i < a->s.cols; i++) {
            ds[i] = p[i] * (ds[i] - delta) * scale;
        }
        if (a->bf16) {
            round_bf16(p, a->s.cols);
            round_bf16(ds, a->s.cols);
        }
    }
}

static void cross_entropy(const void *args, size_t first, size_t last)
{
    const struct loss_args *a = args;
    size_t n = a->logits.cols;
    for (size_t r = first; r < last; r++) {
        float *x = row_of(a->logits, r);
        size_t target = (size_t)a->target[r];
        float top = max_of(x, n), at_target = x[target];
        exp_shifted(x, n, top);
        float sum = sum_of(x, n);
        a->loss[r] = logf(sum) + (top - at_target);
        if (a->scale != 0) {
            float share = a->scale / sum;
            for (size_t i = 0; i < n; i++) {
                x[i] *= share;
            }
            x[target] -= a->scale;
        }
    }
}

/* ---- flat arrays */

typedef double wide __attribute__((vector_size(8 * sizeof(double))));
typedef float half __attribute__((vector_size(8 * sizeof(float))));

static double wide_sum(const wide *v)
{
    double lane[8];
    memcpy(lane, v, sizeof lane);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static double sum_squares(const float *x, size_t count)
{
    wide total = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        half h;
        memcpy(&h, x + i, sizeof h);
        wide w = __builtin_convertvector(h, wide);
        total += w * w;
    }
    double rest = 0;
    for (; i < count; i++) {
        rest += (double)x[i] * x[i];
    }
    return wide_sum(&total) + rest;
}

static double sum(const float *x, size_t count)
{
    wide total = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        half h;
        memcpy(&h, x + i, sizeof h);
        total += __builtin_convertvector(h, wide);
    }
    double rest = 0;
    for (; i < count; i++) {
        rest += (double)x[i];
    }
    return wide_sum(&total) + rest;
}

static void scale(float *x, float factor, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] *= factor;
    }
}

static void adamw_run(float *restrict weight, float *restrict m, float *restrict v,
                      const float *restrict grad, size_t count, const struct adamw_args *a)
{
    float keep1 = (float)a->beta1, new1 = (float)(1.0 - a->beta1);
    float keep2 = (float)a->beta2, new2 = (float)(1.0 - a->beta2);
    float correct1 = 1.0f / a->correction1, correct2 = 1.0f / a->correction2;
    float lr = a->lr, eps = a->eps, decay = a->weight_decay, grad_scale = a->grad_scale;
    for (size_t i = 0; i < count; i++) {
        float g = grad[i] * grad_scale;
        m[i] = keep1 * m[i] + new1 * g;
        v[i] = keep2 * v[i] + new2 * g * g;
        float step = m[i] * correct1 / (sqrtf(v[i] * correct2) + eps);
        weight[i] -= lr * (step + decay * weight[i]);
    }
}

static void adamw(const void *args, size_t first, size_t last)
{
    const struct adamw_args *a = args;
    adamw_run(a->weight + first, a->m + first, a->v + first, a->grad + first, last - first, a);
}

static void exp_run(const float *x, float *y, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        y[i] = exp_fast(x[i]);
    }
}

static float dot_run(const float *x, const float *y, size_t count)
{
    return dot(x, y, count);
}

static bool available(void)
{
    return KERNELS_AVAILABLE;
}

extern const struct kernels KERNELS;
const struct kernels KERNELS = {
    .name = KERNELS_NAME,
    .available = available,
    .bf16 = bf16,
    .fp8_row = fp8_row,
    .fp8_row_pow2 = fp8_row_pow2,
    .e5m6_row = e5m6_row,
    .pack_bf16 = pack_bf16,
    .pack_fp8 = pack_fp8,
    .pack_fp8_pow2 = pack_fp8_pow2,
    .pack_e5m6 = pack_e5m6,
    .unpack_bf16 = unpack_bf16,
    .unpack_fp8 = unpack_fp8,
    .unpack_fp8_pow2 = unpack_fp8_pow2,
    .unpack_e5m6 = unpack_e5m6,
    .add = add,
    .norm = norm,
    .norm_dx = norm_dx,
    .keys = keys,
    .keys_backward = keys_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .combine = combine,
    .combine_backward = combine_backward,
    .cross_entropy = cross_entropy,
    .sigmoid = sigmoid_rows,
    .softmax = softmax,
    .probabilities = probabilities,
    .score_gradient = score_gradient,
    .fp8_col = fp8_col,
    .fp8_col_pow2 = fp8_col_pow2,
    .e5m6_col = e5m6_col,
    .norm_dw = norm_dw,
    .embed_backward = embed_backward,
    .fp8_block = fp8_block,
    .adamw = adamw,
    .scale = scale,
    .sum_squares = sum_squares,
    .sum = sum,
    .dot = dot_run,
    .products = products,
    .weighted_sum = weighted_sum,
    .fp8_encode = encode,
    .fp8_decode = decode,
    .e5m6_encode = encode_e5m6,
    .e5m6_decode = decode_e5m6,
    .exp = exp_run,
};
