/* Causal attention, one head of one sequence at a time, in blocks of queries: a block looks only at
 * the keys up to its last query, and its scores stay in the cache. The backward pass computes the
 * probabilities again from the log-sum-exp of the forward pass. */
#include "trainer/cpu/blas.h"
#include "trainer/cpu/cpu.h"
#include "trainer/cpu/pool.h"

#define QUERIES 64 /* of a block */

struct attention_args {
    const struct op_attention *a;
    struct op_heads q, k, v, out, dout, dq, dk, dv;
    float *lse, *scratch;
};

/* One block: queries [first, first + m) against keys [0, keys). */
struct block {
    size_t first, m, keys;
    float *s, *ds, *delta;
};

static size_t scratch_of_worker(const struct op_attention *a)
{
    return 2 * QUERIES * a->seq + QUERIES;
}

size_t cpu_attention_scratch(const struct op_attention *a)
{
    return scratch_of_worker(a) * (size_t)pool_threads();
}

static struct block block_at(const struct attention_args *args, size_t first, size_t worker)
{
    const struct op_attention *a = args->a;
    float *s = args->scratch + worker * scratch_of_worker(a);
    size_t last = first + QUERIES < a->seq ? first + QUERIES : a->seq;
    return (struct block){first, last - first,         last,
                          s,     s + QUERIES * a->seq, s + 2 * QUERIES * a->seq};
}

static float *head_at(struct op_heads x, size_t token, size_t head)
{
    return x.data + token * x.row + head * x.head;
}

/* s = scale q k^T */
static void scores(const struct attention_args *args, const struct block *b, const float *q,
                   const float *k)
{
    blas_gemm(false, true, b->m, b->keys, args->a->qk, args->a->scale, q, args->q.row, k,
              args->k.row, 0, b->s, b->keys);
}

static void forward_head(void *ctx, size_t task, size_t worker)
{
    const struct attention_args *args = ctx;
    const struct op_attention *a = args->a;
    size_t head = task % a->heads, start = task / a->heads * a->seq;
    const float *k = head_at(args->k, start, head), *v = head_at(args->v, start, head);
    for (size_t first = 0; first < a->seq; first += QUERIES) {
        struct block b = block_at(args, first, worker);
        scores(args, &b, head_at(args->q, start + first, head), k);
        struct scores_args softmax = {.s = mat_of(b.s, b.m, b.keys),
                                      .first_key = first,
                                      .lse = args->lse + task * a->seq + first,
                                      .bf16 = a->bf16};
        cpu_kernels->softmax(&softmax, 0, b.m);
        blas_gemm(false, false, b.m, a->v, b.keys, 1, b.s, b.keys, v, args->v.row, 0,
                  head_at(args->out, start + first, head), args->out.row);
    }
}

static void backward_head(void *ctx, size_t task, size_t worker)
{
    const struct attention_args *args = ctx;
    const struct op_attention *a = args->a;
    size_t head = task % a->heads, start = task / a->heads * a->seq;
    const float *k = head_at(args->k, start, head), *v = head_at(args->v, start, head);
    float *dk = head_at(args->dk, start, head), *dv = head_at(args->dv, start, head);
    /* from the last block, which reaches all keys and so begins the sums */
    size_t blocks = (a->seq + QUERIES - 1) / QUERIES;
    for (size_t i = blocks; i-- > 0;) {
        struct block b = block_at(args, i * QUERIES, worker);
        float sum = i + 1 == blocks ? 0 : 1;
        const float *q = head_at(args->q, start + b.first, head);
        const float *dout = head_at(args->dout, start + b.first, head);
        const float *out = head_at(args->out, start + b.first, head);
        for (size_t r = 0; r < b.m; r++) {
            b.delta[r] = cpu_kernels->dot(dout + r * args->dout.row, out + r * args->out.row, a->v);
        }
        struct scores_args grad = {.s = mat_of(b.s, b.m, b.keys),
                                   .ds = mat_of(b.ds, b.m, b.keys),
                                   .first_key = b.first,
                                   .lse = args->lse + task * a->seq + b.first,
                                   .delta = b.delta,
                                   .scale = a->scale,
                                   .bf16 = a->bf16};
        scores(args, &b, q, k);
        cpu_kernels->probabilities(&grad, 0, b.m);
        blas_gemm(false, true, b.m, b.keys, a->v, 1, dout, args->dout.row, v, args->v.row, 0, b.ds,
                  b.keys);
        cpu_kernels->score_gradient(&grad, 0, b.m);
        blas_gemm(true, false, b.keys, a->v, b.m, 1, b.s, b.keys, dout, args->dout.row, sum, dv,
                  args->dv.row);
        blas_gemm(true, false, b.keys, a->qk, b.m, 1, b.ds, b.keys, q, args->q.row, sum, dk,
                  args->dk.row);
        blas_gemm(false, false, b.m, a->qk, b.keys, 1, b.ds, b.keys, k, args->k.row, 0,
                  head_at(args->dq, start + b.first, head), args->dq.row);
    }
}

void cpu_attention(const struct op_attention *a, struct op_heads q, struct op_heads k,
                   struct op_heads v, struct op_heads out, float *lse, float *scratch)
{
    struct attention_args args = {
        .a = a, .q = q, .k = k, .v = v, .out = out, .lse = lse, .scratch = scratch};
    pool_run(forward_head, &args, a->batch * a->heads);
}

void cpu_attention_backward(const struct op_attention *a, struct op_heads q, struct op_heads k,
                            struct op_heads v, struct op_heads out, const float *lse,
                            struct op_heads dout, struct op_heads dq, struct op_heads dk,
                            struct op_heads dv, float *scratch)
{
    struct attention_args args = {.a = a,
                                  .q = q,
                                  .k = k,
                                  .v = v,
                                  .out = out,
                                  .dout = dout,
                                  .dq = dq,
                                  .dk = dk,
                                  .dv = dv,
                                  .lse = (float *)(uintptr_t)lse,
                                  .scratch = scratch};
    pool_run(backward_head, &args, a->batch * a->heads);
}
