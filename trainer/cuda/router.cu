/* Choosing: the token's scores and ranks lie in shared memory, lane l looks after experts l, l + 32
 * ... top_k times the warp finds the best of those not taken yet, the lower id at a tie: the order
 * in which the CPU back end's insertion leaves them. Counts are integers, so atomics give the same
 * numbers whatever their order. */
#include "trainer/cuda/router.h"

#include "trainer/cuda/each.cuh"
#include "trainer/cuda/ops.h"

namespace
{
constexpr unsigned WARPS = 4; /* tokens of a block */
constexpr float SUM_MIN = 1e-20f;

struct Best {
    float value;
    int expert; /* -1: none */
};

__device__ __forceinline__ bool better(Best a, Best b)
{
    return a.expert >= 0 &&
           (b.expert < 0 || a.value > b.value || (a.value == b.value && a.expert < b.expert));
}

/* The best of value[0..experts) whose bit in the lane's `taken` is not set; the lane that looks
 * after it sets the bit. */
__device__ __forceinline__ int take_best(const float *value, unsigned experts, uint32_t *taken)
{
    const unsigned lane = threadIdx.x % WARP;
    Best best = {0, -1};
    for (unsigned e = lane; e < experts; e += WARP) {
        Best own = {value[e], (int)e};
        if ((*taken >> (e / WARP) & 1) == 0 && better(own, best)) {
            best = own;
        }
    }
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        Best other;
        other.value = __shfl_xor_sync(ALL, best.value, step);
        other.expert = __shfl_xor_sync(ALL, best.expert, step);
        if (better(other, best)) {
            best = other;
        }
    }
    if (best.expert >= 0 && (unsigned)best.expert % WARP == lane) {
        *taken |= 1u << ((unsigned)best.expert / WARP);
    }
    return best.expert;
}

/* The sum of a group's two highest ranks. */
__device__ float group_value(const float *rank, unsigned first, unsigned n)
{
    float best = -INFINITY, second = -INFINITY;
    for (unsigned e = first; e < first + n; e++) {
        float v = rank[e];
        if (v > best) {
            second = best;
            best = v;
        } else if (v > second) {
            second = v;
        }
    }
    return n == 1 ? best : best + second;
}

/* The lane's experts outside of the best top_groups groups. group: shared memory for their values.
 */
__device__ uint32_t outside(const struct op_router &r, const float *rank, float *group)
{
    const unsigned lane = threadIdx.x % WARP, groups = (unsigned)r.groups;
    const unsigned n = (unsigned)(r.experts / r.groups);
    uint32_t taken = 0;
    if (r.top_groups >= r.groups) {
        return 0;
    }
    for (unsigned g = lane; g < groups; g += WARP) {
        group[g] = group_value(rank, g * n, n);
    }
    __syncwarp();
    for (unsigned e = lane; e < r.experts; e += WARP) {
        float own = group[e / n];
        unsigned ahead = 0;
        for (unsigned g = 0; g < groups; g++) {
            ahead += group[g] > own || (group[g] == own && g < e / n);
        }
        taken |= (ahead >= r.top_groups ? 1u : 0u) << (e / WARP);
    }
    return taken;
}

__global__ void __launch_bounds__(WARPS *WARP)
    choose_kernel(struct op_router r, struct mat logits, const float *bias, struct mat scores,
                  int32_t *expert, float *weight, int32_t *count)
{
    DYNAMIC_SHARED(memory);
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const unsigned experts = (unsigned)r.experts, top_k = (unsigned)r.top_k;
    const size_t t = (size_t)blockIdx.x * WARPS + warp;
    float *score = (float *)memory + (size_t)warp * 3 * experts;
    float *rank = score + experts, *group = rank + experts;
    if (t >= logits.rows) {
        return;
    }
    for (unsigned e = lane; e < experts; e += WARP) {
        float s = sigmoid(*at(logits, t, e)), v = s + bias[e];
        score[e] = s;
        rank[e] = v == v ? v : -INFINITY;
        *at(scores, t, e) = s;
    }
    __syncwarp();
    uint32_t taken = outside(r, rank, group);
    float sum = 0, own = 0;
    for (unsigned j = 0; j < top_k; j++) {
        int e = take_best(rank, experts, &taken);
        sum += score[e];
        if (lane == j % WARP) {
            own = score[e]; /* top_k up to 32: one a lane */
            expert[t * top_k + j] = e;
            if (count != NULL) {
                atomicAdd(&count[e], 1);
            }
        }
    }
    if (lane < top_k) {
        weight[t * top_k + lane] = own * (r.normalise ? r.scale / (sum + SUM_MIN) : r.scale);
    }
}

__global__ void __launch_bounds__(WARPS *WARP)
    backward_kernel(struct op_router r, struct mat scores, const int32_t *expert,
                    const float *dweight, size_t seq, float balance_scale, const float *fraction,
                    struct mat dlogits)
{
    const unsigned lane = threadIdx.x % WARP, experts = (unsigned)r.experts;
    const unsigned top_k = (unsigned)r.top_k;
    const size_t t = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (t >= scores.rows) {
        return;
    }
    const int32_t *chosen = expert + t * top_k;
    const float *dw = dweight + t * top_k, *share = fraction + t / seq * experts;
    float sum = SUM_MIN, mixed = 0;
    for (unsigned j = 0; j < top_k; j++) {
        float s = *at(scores, t, (size_t)chosen[j]);
        sum += s;
        mixed += dw[j] * s;
    }
    float all = 0, all_mixed = 0;
    if (balance_scale != 0) {
        for (unsigned e = lane; e < experts; e += WARP) {
            float s = *at(scores, t, e);
            all += s;
            all_mixed += share[e] * s;
        }
        all = SUM_MIN + warp_sum(all);
        all_mixed = warp_sum(all_mixed);
    }
    for (unsigned e = lane; e < experts; e += WARP) {
        float s = *at(scores, t, e), d = 0;
        for (unsigned j = 0; j < top_k; j++) {
            if ((unsigned)chosen[j] == e) {
                d += r.normalise ? r.scale * (dw[j] - mixed / sum) / sum : r.scale * dw[j];
            }
        }
        if (balance_scale != 0) {
            d += balance_scale / (float)seq * (share[e] - all_mixed / all) / all;
        }
        *at(dlogits, t, e) = d * s * (1.0f - s);
    }
}

/* ---- the balance loss */

__global__ void __launch_bounds__(WARPS *WARP)
    count_kernel(struct op_router r, struct mat scores, size_t seq, int32_t *count)
{
    DYNAMIC_SHARED(memory);
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const unsigned experts = (unsigned)r.experts;
    const size_t t = (size_t)blockIdx.x * WARPS + warp;
    float *score = (float *)memory + (size_t)warp * experts;
    if (t >= scores.rows) {
        return;
    }
    for (unsigned e = lane; e < experts; e += WARP) {
        score[e] = *at(scores, t, e);
    }
    __syncwarp();
    uint32_t taken = 0;
    for (unsigned j = 0; j < r.top_k; j++) {
        int e = take_best(score, experts, &taken);
        if (lane == 0 && e >= 0) {
            atomicAdd(&count[t / seq * experts + (unsigned)e], 1);
        }
    }
}

/* One block a sequence: counts become fractions, in place, and then the loss. */
__global__ void __launch_bounds__(BLOCK)
    balance_kernel(struct op_router r, struct mat scores, size_t seq, float *fraction, float *loss)
{
    __shared__ double shared[BLOCK / WARP];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const unsigned experts = (unsigned)r.experts;
    float *f = fraction + blockIdx.x * (size_t)experts;
    for (unsigned e = threadIdx.x; e < experts; e += BLOCK) {
        int32_t count = (int32_t)float_bits(f[e]);
        f[e] = (float)count * ((float)experts / ((float)r.top_k * (float)seq));
    }
    __syncthreads();
    double total = 0;
    for (size_t t = blockIdx.x * seq + warp; t < (blockIdx.x + 1) * seq; t += BLOCK / WARP) {
        double sum = 0, mixed = 0;
        for (unsigned e = lane; e < experts; e += WARP) {
            double s = *at(scores, t, e);
            sum += s;
            mixed += (double)f[e] * s;
        }
        sum = (double)SUM_MIN + warp_sum(sum);
        mixed = warp_sum(mixed);
        total += lane == 0 ? mixed / sum : 0.0;
    }
    total = block_sum(total, shared);
    if (threadIdx.x == 0) {
        loss[blockIdx.x] = (float)(total / (double)seq);
    }
}

constexpr int REFUSED = 1; /* cudaErrorInvalidValue */

bool fits(const struct op_router *r)
{
    return r->experts <= ROUTER_EXPERTS_MAX && r->top_k <= WARP && r->top_k <= r->experts;
}
} // namespace

int router_choose(const struct op_router *r, struct mat logits, const float *bias,
                  struct mat scores, int32_t *expert, float *weight, int32_t *count,
                  struct CUstream_st *stream)
{
    int rc = 0;
    if (!fits(r)) {
        return REFUSED;
    }
    if (count != NULL) {
        rc = (int)cudaMemsetAsync(count, 0, r->experts * sizeof *count, stream);
    }
    if (rc != 0 || logits.rows == 0) {
        return rc;
    }
    return LAUNCH(choose_kernel, blocks_for(logits.rows, WARPS), WARPS * WARP,
                  WARPS * 3 * r->experts * sizeof(float), stream, *r, logits, bias, scores, expert,
                  weight, count);
}

int router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                    const float *dweight, size_t seq, float balance_scale, const float *fraction,
                    struct mat dlogits, struct CUstream_st *stream)
{
    return scores.rows == 0
               ? 0
               : LAUNCH(backward_kernel, blocks_for(scores.rows, WARPS), WARPS * WARP, 0, stream,
                        *r, scores, expert, dweight, seq, balance_scale, fraction, dlogits);
}

int router_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                   float *loss, struct CUstream_st *stream)
{
    size_t sequences = scores.rows / seq;
    if (!fits(r)) {
        return REFUSED;
    }
    if (sequences == 0) {
        return 0;
    }
    /* the counts take the room of the fractions */
    int rc = (int)cudaMemsetAsync(fraction, 0, sequences * r->experts * sizeof *fraction, stream);
    if (rc == 0) {
        rc = LAUNCH(count_kernel, blocks_for(sequences * seq, WARPS), WARPS * WARP,
                    WARPS * r->experts * sizeof(float), stream, *r, scores, seq,
                    (int32_t *)(void *)fraction);
    }
    return rc != 0 ? rc
                   : LAUNCH(balance_kernel, (unsigned)sequences, BLOCK, 0, stream, *r, scores, seq,
                            fraction, loss);
}

void ops_router(const struct op_router *r, struct mat logits, const float *bias, struct mat scores,
                int32_t *expert, float *weight)
{
    state_check(router_choose(r, logits, bias, scores, expert, weight, NULL, cuda_state.stream),
                "choose experts (up to 1024 experts, 32 a token)");
}

void ops_router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                         const float *dweight, size_t seq, float balance_scale,
                         const float *fraction, struct mat dlogits)
{
    state_check(router_backward(r, scores, expert, dweight, seq, balance_scale, fraction, dlogits,
                                cuda_state.stream),
                "gradient of the gate");
}

void ops_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                 float *loss)
{
    state_check(router_balance(r, scores, seq, fraction, loss, cuda_state.stream),
                "balance loss (up to 1024 experts, 32 a token)");
}
