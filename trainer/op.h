/* BACKEND SEAM. Every computation on tensors goes through this table; the CPU back end (cpu/) fills
 * it and is the reference, the CUDA back end is a plug-in that fills the same table. Tensors are
 * dense row-major FP32 in the back end's memory unless a function says otherwise; shapes are [rows,
 * cols]. Functions do not allocate. All are deterministic: the same inputs give the same bits. */
#ifndef TRAINER_OP_H
#define TRAINER_OP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct op_table {
    const char *name; /* "cpu", "cuda" */

    /* Memory, zeroed, 64-byte aligned. NULL never: the process ends with a clear line. */
    void *(*alloc)(size_t bytes);
    void (*release)(void *p);
    void (*copy_to_host)(void *host, const void *p, size_t bytes);
    void (*copy_from_host)(void *p, const void *host, size_t bytes);

    /* sum of x[i]^2, accumulated in double in a fixed order. */
    double (*sum_squares)(const float *x, size_t count);
    /* x *= factor */
    void (*scale)(float *x, float factor, size_t count);
    /* Decoupled AdamW (Loshchilov and Hutter 2019, algorithm 2): m, v first and second moments; g
     * is multiplied by grad_scale first; bias corrections are 1 - beta^t, given as correction1,
     * correction2. */
    void (*adamw)(float *weight, float *m, float *v, const float *grad, size_t count,
                  float grad_scale, float lr, float beta1, float beta2, float eps,
                  float weight_decay, float correction1, float correction2);
    /* the layers' operations follow here */
};

/* The CPU back end. threads: of matrix products. */
const struct op_table *op_cpu(int threads);

#endif
