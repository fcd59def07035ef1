/* The parts of the CPU back end, one file a subject; cpu.c puts their functions into the table. */
#ifndef TRAINER_CPU_CPU_H
#define TRAINER_CPU_CPU_H

#include "trainer/cpu/kernels.h"
#include "trainer/op.h"

/* The kernels in use: the machine's best. */
extern const struct kernels *cpu_kernels;

/* Runs a kernel over `items` of about `floats` numbers each, on several threads where that pays. */
void cpu_run(kernel *fn, const void *args, size_t items, size_t floats);

/* linear.c */
void cpu_linear(struct op_groups groups, struct mat x, const float *w, struct mat y);
void cpu_linear_dx(struct op_groups groups, struct mat dy, const float *w, struct mat dx, bool add);
void cpu_linear_dw(struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw);

/* attention.c */
size_t cpu_attention_scratch(const struct op_attention *a);
void cpu_attention(const struct op_attention *a, struct op_heads q, struct op_heads k,
                   struct op_heads v, struct op_heads out, float *lse, float *scratch);
void cpu_attention_backward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                            struct op_heads v, struct op_heads out, const float *lse,
                            struct op_heads dout, struct op_heads dq, struct op_heads dk,
                            struct op_heads dv, float *scratch);

/* router.c */
void cpu_router(const struct op_router *r, struct mat logits, const float *bias, struct mat scores,
                int32_t *expert, float *weight);
void cpu_router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                         const float *dweight, size_t seq, float balance_scale,
                         const float *fraction, struct mat dlogits);
void cpu_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                 float *loss);

#endif
