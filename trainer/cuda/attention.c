/* op.h's attention: FP32, the scores of some heads of one sequence at a time in memory. */
#include "trainer/cuda/gemm.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/softmax.h"
#include "trainer/cuda/state.h"

#define SCRATCH_FLOATS ((size_t)1 << 26) /* 256 MiB, or one head's */

static size_t head_floats(const struct op_attention *a)
{
    return 2 * a->seq * a->seq;
}

static size_t heads_at_once(const struct op_attention *a)
{
    size_t most = SCRATCH_FLOATS / head_floats(a);
    most = most > 0 ? most : 1;
    return most < a->heads ? most : a->heads;
}

size_t ops_attention_scratch(const struct op_attention *a)
{
    return heads_at_once(a) * head_floats(a);
}

static float *at(struct op_heads x, size_t token, size_t head)
{
    return x.data + token * x.row + head * x.head;
}

static struct gemm_operand rows(struct op_heads x, size_t token, size_t head, bool transposed)
{
    return (struct gemm_operand){at(x, token, head), x.row, transposed, x.head, NULL, 0};
}

static struct gemm_operand scores(const struct op_attention *a, const float *s, bool transposed)
{
    return (struct gemm_operand){s, a->seq, transposed, a->seq * a->seq, NULL, 0};
}

/* c = alpha a b for `heads` heads. */
static void product(size_t m, size_t n, size_t k, size_t heads, float alpha, struct gemm_operand a,
                    struct gemm_operand b, float *c, size_t ldc, size_t stride_c)
{
    state_check(gemm_run(&(struct gemm){GEMM_F32, GEMM_F32, m, n, k, heads, alpha, 0, a, b, c, ldc,
                                        stride_c}),
                "product of attention");
}

void ops_attention(const struct op_attention *a, struct op_heads q, struct op_heads k,
                   struct op_heads v, struct op_heads out, float *lse, float *scratch)
{
    size_t n = a->seq, step = heads_at_once(a);
    for (size_t i = 0; i < a->batch; i++) {
        for (size_t h = 0; h < a->heads; h += step) {
            size_t heads = a->heads - h < step ? a->heads - h : step, t = i * n;
            product(n, n, a->qk, heads, a->scale, rows(q, t, h, false), rows(k, t, h, true),
                    scratch, n, n * n);
            state_check(softmax_causal(scratch, heads, n, a->bf16, lse + (i * a->heads + h) * n,
                                       cuda_state.stream),
                        "softmax");
            product(n, a->v, n, heads, 1, scores(a, scratch, false), rows(v, t, h, false),
                    at(out, t, h), out.row, out.head);
        }
    }
}

void ops_attention_backward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                            struct op_heads v, struct op_heads out, const float *lse,
                            struct op_heads dout, struct op_heads dq, struct op_heads dk,
                            struct op_heads dv, float *scratch)
{
    size_t n = a->seq, step = heads_at_once(a);
    for (size_t i = 0; i < a->batch; i++) {
        for (size_t h = 0; h < a->heads; h += step) {
            size_t heads = a->heads - h < step ? a->heads - h : step, t = i * n;
            float *s = scratch, *ds = scratch + heads * n * n;
            struct op_heads o = {at(out, t, h), out.row, out.head};
            struct op_heads d = {at(dout, t, h), dout.row, dout.head};
            product(n, n, a->qk, heads, a->scale, rows(q, t, h, false), rows(k, t, h, true), s, n,
                    n * n);
            product(n, n, a->v, heads, 1, rows(dout, t, h, false), rows(v, t, h, true), ds, n,
                    n * n);
            state_check(softmax_backward(s, ds, heads, n, a->v, a->scale, a->bf16,
                                         lse + (i * a->heads + h) * n, o, d, cuda_state.stream),
                        "gradient of softmax");
            product(n, a->v, n, heads, 1, scores(a, s, true), rows(dout, t, h, false), at(dv, t, h),
                    dv.row, dv.head);
            product(n, a->qk, n, heads, 1, scores(a, ds, true), rows(q, t, h, false), at(dk, t, h),
                    dk.row, dk.head);
            product(n, a->qk, n, heads, 1, scores(a, ds, false), rows(k, t, h, false), at(dq, t, h),
                    dq.row, dq.head);
        }
    }
}
