/* The gate against a brute-force reference, and its gradients against central differences in
 * double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"
#include "trainer/op.h"

enum { EXPERTS_MAX = 32, TOP_MAX = 8, ROWS_MAX = 24 };

static double uniform(double low, double high)
{
    return low + (high - low) * (double)(random_next() >> 11) * 0x1p-53;
}

static struct op_router random_router(void)
{
    static const size_t counts[] = {1, 2, 4, 8};
    size_t groups = counts[random_below(4)], in_group = 1 + random_below(EXPERTS_MAX / 8);
    size_t top_groups = 1 + random_below(groups), most = in_group * top_groups;
    size_t top_k = 1 + random_below(most < TOP_MAX ? most : TOP_MAX);
    return (struct op_router){.experts = groups * in_group,
                              .top_k = top_k,
                              .groups = groups,
                              .top_groups = top_groups,
                              .normalise = random_below(2) != 0,
                              .scale = (float)uniform(0.5, 3)};
}

/* Experts by brute force: full sorts, selection by rank. Ties go to the lower index. */
static void choose_slowly(const struct op_router *r, const float *score, const float *bias,
                          int32_t *expert)
{
    size_t n = r->experts / r->groups;
    float biased[EXPERTS_MAX], group[EXPERTS_MAX];
    bool allowed[EXPERTS_MAX];
    for (size_t e = 0; e < r->experts; e++) {
        biased[e] = score[e] + bias[e];
    }
    for (size_t g = 0; g < r->groups; g++) {
        group[g] = -INFINITY;
        for (size_t i = g * n; i < (g + 1) * n; i++) {
            for (size_t j = g * n; j < (g + 1) * n; j++) {
                float sum = n == 1 ? biased[i] : biased[i] + biased[j];
                if ((i != j || n == 1) && sum > group[g]) {
                    group[g] = sum;
                }
            }
        }
    }
    for (size_t g = 0; g < r->groups; g++) {
        size_t before = 0;
        for (size_t i = 0; i < r->groups; i++) {
            before += group[i] > group[g] || (group[i] == group[g] && i < g);
        }
        allowed[g] = before < r->top_groups;
    }
    for (size_t e = 0; e < r->experts; e++) {
        size_t before = 0;
        for (size_t i = 0; i < r->experts; i++) {
            before +=
                allowed[i / n] && (biased[i] > biased[e] || (biased[i] == biased[e] && i < e));
        }
        if (allowed[e / n] && before < r->top_k) {
            expert[before] = (int32_t)e;
        }
    }
}

/* Choice and weights equal brute force: with ties, with scores that the bias makes negative, for
 * any grouping. Weights come from the scores without bias. */
static void test_choice(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    for (int trial = 0; trial < 4000; trial++) {
        struct op_router r = random_router();
        float logits[EXPERTS_MAX], score[EXPERTS_MAX], bias[EXPERTS_MAX], weight[TOP_MAX];
        int32_t expert[TOP_MAX], wanted[TOP_MAX];
        bool ties = random_one_in(2), negative = random_one_in(2);
        for (size_t e = 0; e < r.experts; e++) {
            logits[e] = (float)(ties ? (double)random_below(3) - 1 : uniform(-3, 3));
            bias[e] = (float)(ties ? -0.5 * (double)random_below(3) : uniform(-0.5, 0.5));
            bias[e] -= negative ? 1.5f : 0;
        }
        op->router(&r, mat_of(logits, 1, r.experts), bias, mat_of(score, 1, r.experts), expert,
                   weight);
        choose_slowly(&r, score, bias, wanted);
        double sum = 0;
        for (size_t e = 0; e < r.experts; e++) {
            assert_true(fabs((double)score[e] - 1 / (1 + exp(-(double)logits[e]))) < 2e-7);
        }
        for (size_t j = 0; j < r.top_k; j++) {
            assert_int_equal(expert[j], wanted[j]);
            sum += (double)score[expert[j]];
        }
        for (size_t j = 0; j < r.top_k; j++) {
            double w = (double)score[expert[j]] * (double)r.scale / (r.normalise ? sum : 1);
            assert_true(fabs((double)weight[j] - w) < 1e-6 * w);
        }
    }
}

/* Excluded groups stay excluded even when all scores of the chosen group are negative: they are
 * masked with -inf, not 0. */
static void test_mask_is_minus_infinity(void **state)
{
    (void)state;
    struct op_router r = {
        .experts = 8, .top_k = 3, .groups = 2, .top_groups = 1, .normalise = true, .scale = 1};
    float logits[8] = {0}, score[8], weight[3];
    float bias[8] = {-2, -2, -2, -2, -1.0f, -1.1f, -1.2f, -1.3f};
    int32_t expert[3];
    op_cpu(1)->router(&r, mat_of(logits, 1, 8), bias, mat_of(score, 1, 8), expert, weight);
    const int32_t wanted[] = {4, 5, 6};
    assert_memory_equal(expert, wanted, sizeof wanted);
}

/* Whatever the numbers, NaN included, the chosen experts are distinct and in range. */
static void test_nan(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    for (int trial = 0; trial < 500; trial++) {
        struct op_router r = random_router();
        float logits[EXPERTS_MAX], score[EXPERTS_MAX], bias[EXPERTS_MAX] = {0}, weight[TOP_MAX];
        int32_t expert[TOP_MAX];
        for (size_t e = 0; e < r.experts; e++) {
            logits[e] = random_one_in(2) ? NAN : random_one_in(3) ? -INFINITY : 1;
        }
        op->router(&r, mat_of(logits, 1, r.experts), bias, mat_of(score, 1, r.experts), expert,
                   weight);
        for (size_t j = 0; j < r.top_k; j++) {
            assert_true(expert[j] >= 0 && (size_t)expert[j] < r.experts);
            for (size_t i = 0; i < j; i++) {
                assert_int_not_equal(expert[i], expert[j]);
            }
        }
    }
}

/* ---- gradients */

struct problem {
    struct op_router r;
    size_t rows, seq;
    double logits[ROWS_MAX * EXPERTS_MAX], dweight[ROWS_MAX * TOP_MAX];
    int32_t expert[ROWS_MAX * TOP_MAX];
    float fraction[ROWS_MAX * EXPERTS_MAX];
    double balance_scale;
};

/* sum of dweight * weight + balance_scale * sum over sequences of f . P, with the choices held
 * fixed */
static double objective(const struct problem *p)
{
    double total = 0;
    for (size_t t = 0; t < p->rows; t++) {
        double s[EXPERTS_MAX], sum = 0, all = 0;
        for (size_t e = 0; e < p->r.experts; e++) {
            s[e] = 1 / (1 + exp(-p->logits[t * p->r.experts + e]));
            all += s[e];
        }
        const int32_t *expert = p->expert + t * p->r.top_k;
        for (size_t j = 0; j < p->r.top_k; j++) {
            sum += s[expert[j]];
        }
        for (size_t j = 0; j < p->r.top_k; j++) {
            double w = s[expert[j]] * (double)p->r.scale / (p->r.normalise ? sum : 1);
            total += p->dweight[t * p->r.top_k + j] * w;
        }
        for (size_t e = 0; e < p->r.experts; e++) {
            double f = (double)p->fraction[t / p->seq * p->r.experts + e];
            total += p->balance_scale * f * s[e] / all / (double)p->seq;
        }
    }
    return total;
}

/* dlogits, through the weights and through the balance loss, equals central differences. */
static void test_gradient(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    for (int trial = 0; trial < 200; trial++) {
        struct problem p = {.r = random_router()};
        size_t sequences = 1 + random_below(3), experts = p.r.experts;
        float logits[ROWS_MAX * EXPERTS_MAX], score[ROWS_MAX * EXPERTS_MAX],
            got[ROWS_MAX * EXPERTS_MAX];
        float weight[ROWS_MAX * TOP_MAX], dweight[ROWS_MAX * TOP_MAX], bias[EXPERTS_MAX], loss[3];
        p.seq = 1 + random_below(ROWS_MAX / 3);
        p.rows = sequences * p.seq;
        p.balance_scale = random_one_in(3) ? 0 : uniform(0.1, 2);
        for (size_t i = 0; i < p.rows * experts; i++) {
            logits[i] = (float)uniform(-2, 2);
            p.logits[i] = (double)logits[i];
        }
        for (size_t i = 0; i < p.rows * p.r.top_k; i++) {
            dweight[i] = (float)uniform(-1, 1);
            p.dweight[i] = (double)dweight[i];
        }
        for (size_t e = 0; e < experts; e++) {
            bias[e] = (float)uniform(-1, 0.5);
        }
        struct mat scores = mat_of(score, p.rows, experts);
        op->router(&p.r, mat_of(logits, p.rows, experts), bias, scores, p.expert, weight);
        op->balance(&p.r, scores, p.seq, p.fraction, loss);
        op->router_backward(&p.r, scores, p.expert, dweight, p.seq, (float)p.balance_scale,
                            p.fraction, mat_of(got, p.rows, experts));
        double error = 0, norm = 0;
        for (size_t i = 0; i < p.rows * experts; i++) {
            const double step = 1e-5;
            double kept = p.logits[i];
            p.logits[i] = kept + step;
            double above = objective(&p);
            p.logits[i] = kept - step;
            double wanted = (above - objective(&p)) / (2 * step);
            p.logits[i] = kept;
            error += pow((double)got[i] - wanted, 2);
            norm += wanted * wanted;
        }
        assert_true(sqrt(error) < 1e-5 * sqrt(norm) + 1e-6 * sqrt((double)(p.rows * experts)));
    }
}

/* The balance loss is sum of f_i P_i with f from the bare scores' own top k: 1 when even, up to
 * experts / top_k when all tokens agree. */
static void test_balance(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    struct op_router r = {
        .experts = 4, .top_k = 2, .groups = 2, .top_groups = 1, .normalise = true, .scale = 1};
    /* two sequences of two tokens: the first spreads over all experts, the second always likes 1
     * and 3 (of different groups) */
    float score[16] = {0.8f, 0.8f, 0.2f, 0.2f, 0.2f, 0.2f, 0.8f, 0.8f, 0, 1, 0, 1, 0, 1, 0, 1};
    float fraction[8], loss[2];
    op->balance(&r, mat_of(score, 4, 4), 2, fraction, loss);
    const float wanted[8] = {1, 1, 1, 1, 0, 2, 0, 2};
    for (size_t i = 0; i < 8; i++) {
        assert_true(fabsf(fraction[i] - wanted[i]) < 1e-6f);
    }
    assert_true(fabsf(loss[0] - 1) < 1e-6f);
    assert_true(fabsf(loss[1] - 2) < 1e-6f);
}

int main(void)
{
    random_start("test_router");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),  cmocka_unit_test(test_mask_is_minus_infinity),
        cmocka_unit_test(test_nan),     cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_balance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
