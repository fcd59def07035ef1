/* Norm, rotary embedding, SwiGLU, mixture combination. Part of kernels_base.c. */
#ifndef TRAINER_CPU_KERNELS_LAYER_H
#define TRAINER_CPU_KERNELS_LAYER_H

#include <math.h>

#include "trainer/cpu/kernels_quantise.h"

static inline void norm(const void *args, size_t first, size_t last)
{
    const struct norm_args *a = args;
    size_t n = a->x.cols;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        float *y = row_of(a->y, r);
        float rstd = 1.0f / sqrtf(dot(x, x, n) / (float)n + a->eps);
        a->rstd[r] = rstd;
        for (size_t c = 0; c < n; c++) {
            y[c] = x[c] * rstd * a->w[c];
        }
    }
}

/* dx = rstd * (w dy - xhat * mean(w dy xhat)), xhat = x * rstd */
static inline void norm_dx(const void *args, size_t first, size_t last)
{
    const struct norm_backward_args *a = args;
    size_t n = a->x.cols;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r), *dy = row_of(a->dy, r), *w = a->w;
        float *dx = row_of(a->dx, r), rstd = a->rstd[r];
        vec sum = {0}, vx, vdy, vw;
        for (size_t c = 0; c < n; c += LANES) {
            vec_load(&vx, x + c, n - c, 0);
            vec_load(&vdy, dy + c, n - c, 0);
            vec_load(&vw, w + c, n - c, 0);
            sum += vx * vdy * vw;
        }
        float mean = vec_sum(&sum) * rstd * rstd / (float)n;
        if (a->add) {
            for (size_t c = 0; c < n; c++) {
                dx[c] += rstd * (w[c] * dy[c] - x[c] * mean);
            }
        } else {
            for (size_t c = 0; c < n; c++) {
                dx[c] = rstd * (w[c] * dy[c] - x[c] * mean);
            }
        }
    }
}

static inline void norm_dw(const void *args, size_t first, size_t last)
{
    const struct norm_backward_args *a = args;
    for (size_t c = first; c < last; c += PANEL) {
        size_t n = smaller(PANEL, last - c);
        float sum[PANEL] = {0};
        for (size_t r = 0; r < a->x.rows; r++) {
            const float *x = row_of(a->x, r) + c, *dy = row_of(a->dy, r) + c;
            float rstd = a->rstd[r];
            for (size_t i = 0; i < n; i++) {
                sum[i] += dy[i] * (x[i] * rstd);
            }
        }
        for (size_t i = 0; i < n; i++) {
            a->dw[c + i] += a->alpha * sum[i];
        }
    }
}

static inline void keys(const void *args, size_t first, size_t last)
{
    const struct keys_args *a = args;
    for (size_t t = first; t < last; t++) {
        for (size_t h = 0; h < a->heads; h++) {
            float *k = a->k.data + t * a->k.row + h * a->k.head;
            const float *nope = a->nope.data + t * a->nope.row + h * a->nope.head;
            memcpy(k, nope, a->nope_dim * sizeof *k);
            memcpy(k + a->nope_dim, row_of(a->shared, t), a->shared.cols * sizeof *k);
        }
    }
}

static inline void keys_backward(const void *args, size_t first, size_t last)
{
    const struct keys_args *a = args;
    for (size_t t = first; t < last; t++) {
        float *shared = row_of(a->shared, t);
        for (size_t h = 0; h < a->heads; h++) {
            const float *dk = a->k.data + t * a->k.row + h * a->k.head;
            memcpy(a->nope.data + t * a->nope.row + h * a->nope.head, dk, a->nope_dim * sizeof *dk);
            for (size_t i = 0; i < a->shared.cols; i++) {
                shared[i] = (h == 0 ? 0 : shared[i]) + dk[a->nope_dim + i];
            }
        }
    }
}

static inline void swiglu(const void *args, size_t first, size_t last)
{
    const struct swiglu_args *a = args;
    size_t n = a->out.cols;
    for (size_t r = first; r < last; r++) {
        const float *gate = row_of(a->gu, r), *up = gate + n;
        float *out = row_of(a->out, r);
        for (size_t c = 0; c < n; c++) {
            out[c] = gate[c] * sigmoid(gate[c]) * up[c];
        }
    }
}

static inline void swiglu_backward_row(const float *restrict gate, const float *restrict up,
                                       const float *restrict dout, float *restrict dgate,
                                       float *restrict dup, float *restrict out, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        float s = sigmoid(gate[c]);
        float silu = gate[c] * s;
        out[c] = silu * up[c];
        dup[c] = dout[c] * silu;
        dgate[c] = dout[c] * up[c] * (s + silu * (1.0f - s));
    }
}

static inline void swiglu_backward(const void *args, size_t first, size_t last)
{
    const struct swiglu_args *a = args;
    size_t n = a->out.cols;
    for (size_t r = first; r < last; r++) {
        const float *gu = row_of(a->gu, r);
        float *dgu = row_of(a->dgu, r);
        swiglu_backward_row(gu, gu + n, row_of(a->dout, r), dgu, dgu + n, row_of(a->out, r), n);
    }
}

static inline void sigmoid_rows(const void *args, size_t first, size_t last)
{
    const struct quantise_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r);
        float *y = row_of(a->y, r);
        for (size_t c = 0; c < a->x.cols; c++) {
            y[c] = sigmoid(x[c]);
        }
    }
}

static inline void combine(const void *args, size_t first, size_t last)
{
    const struct combine_args *a = args;
    for (size_t t = first; t < last; t++) {
        float *out = row_of(a->out, t);
        for (size_t j = 0; j < a->top_k; j++) {
            size_t pair = t * a->top_k + j;
            const float *y = row_of(a->y, a->place[pair]);
            float w = a->weight == NULL ? 1.0f : a->weight[pair];
            for (size_t c = 0; c < a->out.cols; c++) {
                out[c] += w * y[c];
            }
        }
    }
}

static inline void combine_backward(const void *args, size_t first, size_t last)
{
    const struct combine_args *a = args;
    for (size_t t = first; t < last; t++) {
        const float *dout = row_of(a->out, t);
        for (size_t j = 0; j < a->top_k; j++) {
            size_t pair = t * a->top_k + j;
            float *dy = row_of(a->dy, a->place[pair]), w = a->weight[pair];
            a->dweight[pair] = dot(dout, row_of(a->y, a->place[pair]), a->out.cols);
            for (size_t c = 0; c < a->out.cols; c++) {
                dy[c] = w * dout[c];
            }
        }
    }
}

static inline void embed_backward(const void *args, size_t first, size_t last)
{
    const struct embed_args *a = args;
    for (size_t r = 0; r < a->dy.rows; r++) {
        const float *dy = row_of(a->dy, r);
        float *row = a->table + (size_t)a->token[r] * a->dy.cols;
        for (size_t c = first; c < last; c++) {
            row[c] += a->alpha * dy[c];
        }
    }
}

static inline void add(const void *args, size_t first, size_t last)
{
    const struct add_args *a = args;
    for (size_t r = first; r < last; r++) {
        const float *x = row_of(a->x, r), *y = row_of(a->y, r);
        float *out = row_of(a->out, r);
        for (size_t c = 0; c < a->out.cols; c++) {
            out[c] = x[c] + y[c];
        }
    }
}

#endif
