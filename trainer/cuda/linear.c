/* op.h's linear layers: one FP32 product a group. */
#include "trainer/cuda/gemm.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/state.h"

static struct gemm_operand operand(const float *data, size_t ld, bool transposed)
{
    return (struct gemm_operand){.data = data, .ld = ld, .transposed = transposed};
}

static void run(struct gemm g, const char *what)
{
    g.type = GEMM_F32;
    g.c_type = GEMM_F32;
    g.batch = 1;
    if (g.k > 0) {
        state_check(gemm_run(&g), what);
    }
}

void ops_linear(struct op_groups groups, struct mat x, const float *w, struct mat y)
{
    for (size_t i = 0; i < groups.count; i++) {
        size_t first = groups.offset[i], rows = groups.offset[i + 1] - first;
        run((struct gemm){.m = rows,
                          .n = y.cols,
                          .k = x.cols,
                          .alpha = 1,
                          .a = operand(x.data + first * x.ld, x.ld, false),
                          .b = operand(w + i * y.cols * x.cols, x.cols, true),
                          .c = y.data + first * y.ld,
                          .ldc = y.ld},
            "product");
    }
}

void ops_linear_dx(struct op_groups groups, struct mat dy, const float *w, struct mat dx, bool add)
{
    for (size_t i = 0; i < groups.count; i++) {
        size_t first = groups.offset[i], rows = groups.offset[i + 1] - first;
        run((struct gemm){.m = rows,
                          .n = dx.cols,
                          .k = dy.cols,
                          .alpha = 1,
                          .beta = add ? 1 : 0,
                          .a = operand(dy.data + first * dy.ld, dy.ld, false),
                          .b = operand(w + i * dy.cols * dx.cols, dx.cols, false),
                          .c = dx.data + first * dx.ld,
                          .ldc = dx.ld},
            "product for an input's gradient");
    }
}

void ops_linear_dw(struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw)
{
    for (size_t i = 0; i < groups.count; i++) {
        size_t first = groups.offset[i], rows = groups.offset[i + 1] - first;
        run((struct gemm){.m = dy.cols,
                          .n = x.cols,
                          .k = rows,
                          .alpha = alpha,
                          .beta = 1,
                          .a = operand(dy.data + first * dy.ld, dy.ld, true),
                          .b = operand(x.data + first * x.ld, x.ld, false),
                          .c = dw + i * dy.cols * x.cols,
                          .ldc = x.cols},
            "product for a weight's gradient");
    }
}
