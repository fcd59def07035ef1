/* The gate of the mixture, in the order of the published implementation (see docs/numerics.md). */
#include <math.h>

#include "trainer/cpu/cpu.h"
#include "trainer/fp8.h"

#define SUM_MIN 1e-20f /* added to a sum before dividing by it */

/* The biased score of an expert; NaN ranks last so that a choice is always made. */
static float rank_value(float score, float bias)
{
    float v = score + bias;
    return v == v ? v : -INFINITY;
}

/* Sum of the two highest biased scores of experts [first, first + n). */
static float group_value(const float *score, const float *bias, size_t first, size_t n)
{
    float best = -INFINITY, second = -INFINITY;
    for (size_t e = first; e < first + n; e++) {
        float v = rank_value(score[e], bias[e]);
        if (v > best) {
            second = best;
            best = v;
        } else if (v > second) {
            second = v;
        }
    }
    return n == 1 ? best : best + second;
}

/* Whether group g is among the top_groups best; ties go to the lower group. */
static bool group_selected(const struct op_router *r, const float *score, const float *bias,
                           size_t g)
{
    size_t n = r->experts / r->groups, better = 0;
    if (r->top_groups >= r->groups) {
        return true;
    }
    float own = group_value(score, bias, g * n, n);
    for (size_t other = 0; other < r->groups; other++) {
        float v = group_value(score, bias, other * n, n);
        better += v > own || (v == own && other < g);
    }
    return better < r->top_groups;
}

/* Inserts expert e into the list of the best so far, best first. Equal values stay in order of
 * arrival. */
static size_t insert(int32_t *expert, float *value, size_t held, size_t top_k, size_t e, float v)
{
    if (held == top_k && !(v > value[held - 1])) {
        return held;
    }
    size_t at = held < top_k ? held : held - 1;
    for (; at > 0 && v > value[at - 1]; at--) {
        value[at] = value[at - 1];
        expert[at] = expert[at - 1];
    }
    value[at] = v;
    expert[at] = (int32_t)e;
    return held < top_k ? held + 1 : held;
}

/* value: scratch for top_k numbers, where the caller wants the weights in the end. */
static void select_experts(const struct op_router *r, const float *score, const float *bias,
                           int32_t *expert, float *value)
{
    size_t n = r->experts / r->groups, held = 0;
    for (size_t g = 0; g < r->groups; g++) {
        if (!group_selected(r, score, bias, g)) {
            continue;
        }
        for (size_t e = g * n; e < (g + 1) * n; e++) {
            held = insert(expert, value, held, r->top_k, e, rank_value(score[e], bias[e]));
        }
    }
}

static void weigh(const struct op_router *r, const float *score, const float *bias,
                  const int32_t *expert, float *weight)
{
    float sum = 0;
    for (size_t j = 0; j < r->top_k; j++) {
#ifdef MUTANT_gate_biased
        weight[j] = score[expert[j]] + bias[expert[j]];
#else
        (void)bias;
        weight[j] = score[expert[j]];
#endif
        sum += weight[j];
    }
    float factor = r->normalise ? r->scale / (sum + SUM_MIN) : r->scale;
    for (size_t j = 0; j < r->top_k; j++) {
        weight[j] *= factor;
    }
}

void cpu_router(const struct op_router *r, struct mat logits, const float *bias, struct mat scores,
                int32_t *expert, float *weight)
{
    struct quantise_args args = {logits, scores};
    cpu_run(cpu_kernels->sigmoid, &args, logits.rows, logits.cols);
    for (size_t t = 0; t < scores.rows; t++) {
        const float *score = scores.data + t * scores.ld;
        select_experts(r, score, bias, expert + t * r->top_k, weight + t * r->top_k);
        weigh(r, score, bias, expert + t * r->top_k, weight + t * r->top_k);
    }
}

/* weight_j = scale * s_j / Z, Z = sum of s + SUM_MIN: ds_j = scale * (dw_j - sum_i dw_i s_i / Z) /
 * Z. */
static void weights_backward(const struct op_router *r, const float *score, const int32_t *expert,
                             const float *dweight, float *dscore)
{
    if (!r->normalise) {
        for (size_t j = 0; j < r->top_k; j++) {
            dscore[expert[j]] += r->scale * dweight[j];
        }
        return;
    }
    float sum = SUM_MIN, mixed = 0;
    for (size_t j = 0; j < r->top_k; j++) {
        sum += score[expert[j]];
        mixed += dweight[j] * score[expert[j]];
    }
    for (size_t j = 0; j < r->top_k; j++) {
        dscore[expert[j]] += r->scale * (dweight[j] - mixed / sum) / sum;
    }
}

/* loss = sum_i f_i mean_t (s_t,i / Z_t): ds_t,i = (f_i - sum_j f_j s_t,j / Z_t) / (Z_t T). */
static void balance_backward(const float *score, size_t experts, const float *fraction,
                             float factor, float *dscore)
{
    float sum = SUM_MIN, mixed = 0;
    for (size_t e = 0; e < experts; e++) {
        sum += score[e];
        mixed += fraction[e] * score[e];
    }
    for (size_t e = 0; e < experts; e++) {
        dscore[e] += factor * (fraction[e] - mixed / sum) / sum;
    }
}

void cpu_router_backward(const struct op_router *r, struct mat scores, const int32_t *expert,
                         const float *dweight, size_t seq, float balance_scale,
                         const float *fraction, struct mat dlogits)
{
    for (size_t t = 0; t < scores.rows; t++) {
        const float *score = scores.data + t * scores.ld;
        float *d = dlogits.data + t * dlogits.ld;
        for (size_t e = 0; e < r->experts; e++) {
            d[e] = 0;
        }
        weights_backward(r, score, expert + t * r->top_k, dweight + t * r->top_k, d);
        if (balance_scale != 0) {
            balance_backward(score, r->experts, fraction + t / seq * r->experts,
                             balance_scale / (float)seq, d);
        }
        for (size_t e = 0; e < r->experts; e++) {
            d[e] *= score[e] * (1.0f - score[e]);
        }
    }
}

/* How many experts stand before e in the ranking of the bare scores. */
static size_t rank_of(const float *score, size_t experts, size_t e)
{
    size_t before = 0;
    for (size_t i = 0; i < experts; i++) {
        before += score[i] > score[e] || (score[i] == score[e] && i < e);
    }
    return before;
}

void cpu_balance(const struct op_router *r, struct mat scores, size_t seq, float *fraction,
                 float *loss)
{
    for (size_t s = 0; s < scores.rows / seq; s++) {
        float *f = fraction + s * r->experts;
        for (size_t e = 0; e < r->experts; e++) {
            f[e] = 0;
        }
        for (size_t t = s * seq; t < (s + 1) * seq; t++) {
            const float *score = scores.data + t * scores.ld;
            for (size_t e = 0; e < r->experts; e++) {
                f[e] += rank_of(score, r->experts, e) < r->top_k ? 1.0f : 0.0f;
            }
        }
        for (size_t e = 0; e < r->experts; e++) {
            f[e] *= (float)r->experts / ((float)r->top_k * (float)seq);
        }
        double total = 0;
        for (size_t t = s * seq; t < (s + 1) * seq; t++) {
            const float *score = scores.data + t * scores.ld;
            double sum = (double)SUM_MIN, mixed = 0;
            for (size_t e = 0; e < r->experts; e++) {
                sum += (double)score[e];
                mixed += (double)f[e] * (double)score[e];
            }
            total += mixed / sum;
        }
        loss[s] = (float)(total / (double)seq);
    }
}
