/* BACKEND SEAM. Every computation on tensors goes through this table; the CPU back end (cpu/) fills
 * it and is the reference, the CUDA back end is a plug-in that fills the same table. Tensors are
 * dense row-major FP32 in the back end's memory unless a function says otherwise; shapes are [rows,
 * cols]. Functions do not allocate. All are deterministic: the same inputs give the same bits.
 *
 * Low precision is emulated: a BF16 or FP8 value is held as the FP32 number it stands for
 * (`quantise` puts it on the grid), products are FP32. For FP8 that is what block-scaled FP32
 * accumulation computes, sum over tiles of scale_a * scale_b * (sum of code_a * code_b), with the
 * scales multiplied in before the sum instead of after it: the same real number, differing by FP32
 * rounding only (one rounding of scale * code per operand, 2^-24 relative, and the order of the
 * additions). */
#ifndef TRAINER_OP_H
#define TRAINER_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

/* A window on a matrix: element (r, c) is data[r * ld + c]. */
struct mat {
    float *data;
    size_t rows, cols, ld;
};

static inline struct mat mat_of(float *data, size_t rows, size_t cols)
{
    return (struct mat){data, rows, cols, cols};
}

static inline struct mat mat_rows(struct mat m, size_t first, size_t count)
{
    return (struct mat){m.data + first * m.ld, count, m.cols, m.ld};
}

static inline struct mat mat_cols(struct mat m, size_t first, size_t count)
{
    return (struct mat){m.data + first, m.rows, count, m.ld};
}

/* Rows in consecutive groups, one for each of `count` weight matrices: group g is rows [offset[g],
 * offset[g + 1]). offset is host memory. A plain Linear is one group of all rows. Groups may be
 * empty. */
struct op_groups {
    size_t count;
    const size_t *offset;
};

/* Heads inside rows of tokens: element i of head h of token t is data[t * row + h * head + i]. */
struct op_heads {
    float *data;
    size_t row, head;
};

/* The grids of `quantise`. An E4M3 tile's scale is max(amax, 1e-4) / 448; tiles at the edge are
 * smaller. */
enum op_format {
    OP_F32,
    OP_BF16,      /* round to nearest even */
    OP_FP8_ROW,   /* E4M3, one scale per 1 x 128: activations and their gradients in Fprop and Dgrad
                   */
    OP_FP8_COL,   /* E4M3, 128 x 1, from the first row of each group: both operands of Wgrad */
    OP_FP8_BLOCK, /* E4M3, 128 x 128: weights */
    OP_FP8_ROW_POW2, /* E4M3, 1 x 128 and 128 x 1, the scale rounded up to a power of two: of what
                      */
    OP_FP8_COL_POW2, /* the first gave the second rounds nothing again but what becomes very small
                      */
    OP_E5M6_ROW,     /* E5M6 with power-of-two scales (e5m6.h), 1 x 128: the input of the projection
                        after attention, kept for Wgrad */
    OP_E5M6_COL, /* the same, 128 x 1, from the first row of each group; of what OP_E5M6_ROW gave
                     it rounds nothing again but numbers 2^29 below the largest of their tile */
};

/* Floats that a row of packed numbers takes (op_table.pack): codes of 1 byte in FP8 and of 2 in
 * BF16 and E5M6; in front of them the scales of the row's tiles, 1 byte each where they are powers
 * of two. */
static inline size_t op_packed_cols(enum op_format format, size_t cols)
{
    size_t tiles = (cols + 127) / 128, words = (cols + 3) / 4, pairs = (cols + 1) / 2;
    switch (format) {
    case OP_BF16:
        return pairs;
    case OP_FP8_ROW:
        return tiles + words;
    case OP_FP8_ROW_POW2:
        return (tiles + 3) / 4 + words;
    case OP_E5M6_ROW:
        return (tiles + 3) / 4 + pairs;
    default:
        return cols;
    }
}

struct op_attention {
    size_t batch, seq, heads;
    size_t qk, v; /* head dimensions */
    float scale;  /* of the scores */
    bool bf16;    /* round probabilities and score gradients, which enter products */
};

struct op_router {
    size_t experts, top_k;
    size_t groups,
        top_groups; /* node-limited routing: of experts / groups each; 1 and 1: no limit */
    bool normalise; /* gate weights sum to `scale` */
    float scale;
};

struct op_table {
    const char *name; /* "cpu", "cuda" */

    /* Memory, zeroed, 64-byte aligned. NULL never: the process ends with a clear line. */
    void *(*alloc)(size_t bytes);
    void (*release)(void *p);
    void (*copy_to_host)(void *host, const void *p, size_t bytes); /* also from another thread */
    void (*copy_from_host)(void *p, const void *host, size_t bytes);

    /* sum of x[i]^2, accumulated in double in a fixed order. */
    double (*sum_squares)(const float *x, size_t count);
    /* sum of x[i], likewise. */
    double (*sum)(const float *x, size_t count);
    /* x *= factor */
    void (*scale)(float *x, float factor, size_t count);
    /* Decoupled AdamW (Loshchilov and Hutter 2019, algorithm 2): m, v first and second moments; g
     * is multiplied by grad_scale first; bias corrections are 1 - beta^t, given as correction1,
     * correction2. The betas are double because 1 - beta is wanted: 1 - 0.999f is off by 1.3e-5. */
    void (*adamw)(float *weight, float *m, float *v, const float *grad, size_t count,
                  float grad_scale, float lr, double beta1, double beta2, float eps,
                  float weight_decay, float correction1, float correction2);

    /* y = x */
    void (*copy)(struct mat x, struct mat y);
    void (*zero)(struct mat y);
    /* out = x + y; out may be x or y. */
    void (*add)(struct mat x, struct mat y, struct mat out);
    /* y = x on the grid of a format, in place allowed. Groups matter to the _COL formats. NaN and
     * infinity come out as NaN. */
    void (*quantise)(enum op_format format, struct op_groups groups, struct mat x, struct mat y);
    /* Codes of numbers that are on a grid, and those numbers again, to the bit: OP_BF16,
     * OP_FP8_ROW, OP_FP8_ROW_POW2, OP_E5M6_ROW. packed [rows, op_packed_cols] is for unpack, gather
     * and copies only. Both NULL: this back end has none, and what would be kept or sent as codes
     * stays FP32.
     */
    void (*pack)(enum op_format format, struct mat x, struct mat packed);
    void (*unpack)(enum op_format format, struct mat packed, struct mat y);

    /* Linear layers, weight [n, k] per group, matrices end to end. x [rows, k], y [rows, n]. */
    void (*linear)(struct op_groups groups, struct mat x, const float *w,
                   struct mat y); /* y = x w^T */
    void (*linear_dx)(struct op_groups groups, struct mat dy, const float *w, struct mat dx,
                      bool add); /* dx (+)= dy w */
    void (*linear_dw)(struct op_groups groups, struct mat dy, struct mat x, float alpha,
                      float *dw); /* dw += alpha dy^T x */

    /* y[r] = table[token[r]]; dtable[token[r]] += alpha * dy[r], in row order. */
    void (*embed)(const int32_t *token, const float *table, struct mat y);
    void (*embed_backward)(const int32_t *token, struct mat dy, float alpha, float *dtable);

    /* y = w * x * rstd, rstd[r] = 1 / sqrt(mean(x[r]^2) + eps). */
    void (*rmsnorm)(struct mat x, const float *w, float eps, struct mat y, float *rstd);
    /* dx (+)= ..., dw += alpha * sum over rows. */
    void (*rmsnorm_backward)(struct mat x, const float *w, const float *rstd, struct mat dy,
                             struct mat dx, bool add, float alpha, float *dw);

    /* Rotates the adjacent pairs (2i, 2i + 1) of the first `dim` elements of each head in place;
     * row t uses row t % seq of the table [seq, dim] of (cos, sin) pairs. inverse: the transposed
     * rotation, for gradients. */
    void (*rope)(struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim,
                 const float *table, bool inverse);
    /* Keys of all heads: k[t, h] = [nope[t, h], shared[t]]; backward: splits, summing the shared
     * part over heads. */
    void (*keys)(struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads,
                 struct op_heads k);
    void (*keys_backward)(struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim,
                          struct mat dshared);
    /* Causal softmax(scale q k^T) v. lse [batch, heads, seq]: log of the sum of exponentials, for
     * the backward pass, which recomputes the probabilities. scratch: attention_scratch() floats.
     */
    size_t (*attention_scratch)(const struct op_attention *a);
    void (*attention)(const struct op_attention *a, struct op_heads q, struct op_heads k,
                      struct op_heads v, struct op_heads out, float *lse, float *scratch);
    void (*attention_backward)(const struct op_attention *a, struct op_heads q, struct op_heads k,
                               struct op_heads v, struct op_heads out, const float *lse,
                               struct op_heads dout, struct op_heads dq, struct op_heads dk,
                               struct op_heads dv, float *scratch);

    /* gu = [gate, up] side by side, out = silu(gate) * up. Backward also gives out again. */
    void (*swiglu)(struct mat gu, struct mat out);
    void (*swiglu_backward)(struct mat gu, struct mat dout, struct mat dgu, struct mat out);

    /* DeepSeek-V3's gate: scores = sigmoid(logits); groups ranked by the sum of their two highest
     * scores + bias; top_k experts by scores + bias inside the best top_groups groups, others being
     * -inf; weight from the scores without bias. expert, weight [rows, top_k], best first, the
     * lower id at a tie. */
    void (*router)(const struct op_router *r, struct mat logits, const float *bias,
                   struct mat scores, int32_t *expert, float *weight);
    /* dlogits = through the weights, plus the balance loss's when balance_scale != 0: fraction
     * [sequences, experts]. */
    void (*router_backward)(const struct op_router *r, struct mat scores, const int32_t *expert,
                            const float *dweight, size_t seq, float balance_scale,
                            const float *fraction, struct mat dlogits);
    /* Sequence-wise balance loss without its factor: loss[s] = sum_i f_i P_i; f ranks the bare
     * scores (eq. 18). */
    void (*balance)(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                    float *loss);

    /* y[i] = x[index[i]] */
    void (*gather)(struct mat x, const uint32_t *index, struct mat y);
    /* out[t] += sum over slots j of weight[t, j] * y[place[t, j]]; weight NULL is 1. */
    void (*combine)(struct mat y, const uint32_t *place, const float *weight, size_t top_k,
                    struct mat out);
    /* dy[place[t, j]] = weight[t, j] * dout[t]; dweight[t, j] = dout[t] . y[place[t, j]]. */
    void (*combine_backward)(struct mat dout, struct mat y, const uint32_t *place,
                             const float *weight, size_t top_k, struct mat dy, float *dweight);

    /* loss[r] = -log softmax(logits[r])[target[r]]; scale != 0: logits become scale * their
     * gradient. */
    void (*cross_entropy)(struct mat logits, const int32_t *target, float scale, float *loss);
};

/* The CPU back end. threads: of matrix products and of the loops over rows, at least 1; results are
 * reproducible to the bit for one number of threads. With more than 1 only one thread at a time may
 * call the table. */
const struct op_table *op_cpu(int threads);

#endif
