#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "trainer/balance.h"
#include "trainer/optim.h"

enum { N = 37 };

/* Three updates equal AdamW written down again in double; weight decay touches only what decays. */
static void test_adamw(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    struct param params[2] = {{.count = N, .decay = true}, {.count = N, .decay = false}};
    double w[2][N];
    double m[2][N] = {{0}};
    double v[2][N] = {{0}};
    struct train_spec spec = {0};
    spec.optimizer.beta1 = 0.9;
    spec.optimizer.beta2 = 0.95;
    spec.optimizer.eps = 1e-8;
    spec.optimizer.weight_decay = 0.1;
    for (int p = 0; p < 2; p++) {
        params[p].weight = op->alloc(N * sizeof(float));
        params[p].grad = op->alloc(N * sizeof(float));
        for (int i = 0; i < N; i++) {
            params[p].weight[i] = (float)(0.1 * i - 1);
            w[p][i] = params[p].weight[i];
        }
    }
    struct optim o;
    optim_init(&o, op, params, 2, NULL, 0);
    for (uint64_t step = 1; step <= 3; step++) {
        const double lr = 0.01 * (double)step;
        const double clip = 0.5;
        for (int p = 0; p < 2; p++) {
            for (int i = 0; i < N; i++) {
                double g = sin((double)(step * 10 + (uint64_t)i)) * (i % 5 == 0 ? 0 : 1);
                params[p].grad[i] = (float)g;
                g = (double)params[p].grad[i] * clip;
                m[p][i] = 0.9 * m[p][i] + 0.1 * g;
                v[p][i] = 0.95 * v[p][i] + 0.05 * g * g;
                double mh = m[p][i] / (1 - pow(0.9, (double)step));
                double vh = v[p][i] / (1 - pow(0.95, (double)step));
                w[p][i] -= lr * (mh / (sqrt(vh) + 1e-8) + (p == 0 ? 0.1 * w[p][i] : 0));
            }
        }
        optim_step(&o, &spec, step, lr, clip);
        for (int p = 0; p < 2; p++) {
            for (int i = 0; i < N; i++) {
                assert_true(fabs((double)params[p].weight[i] - w[p][i]) < 1e-6);
                assert_true(fabs((double)o.part[p].state[OPTIM_M][i] - m[p][i]) < 1e-6);
                assert_true(fabs((double)o.part[p].state[OPTIM_V][i] - v[p][i]) < 1e-6);
            }
        }
    }
    optim_fini(&o);
    for (int p = 0; p < 2; p++) {
        op->release(params[p].weight);
        op->release(params[p].grad);
    }
}

/* An expert below the mean load rises by the speed, one above falls, one at the mean stays. */
static void test_bias_update(void **state)
{
    (void)state;
    float bias[4] = {0, 0.5f, -1, 0};
    uint64_t load[4] = {10, 0, 4, 2}; /* mean 4 */
    struct router r = {.experts = 4, .bias = bias, .load = load};
    balance_update(&r, 1, 0.25);
    assert_true(bias[0] == -0.25f && bias[1] == 0.75f && bias[2] == -1 && bias[3] == 0.25f);
    load[0] = load[1] = load[2] = load[3] = 7;
    balance_update(&r, 1, 0.25);
    assert_true(bias[0] == -0.25f && bias[1] == 0.75f && bias[2] == -1 && bias[3] == 0.25f);
    /* a mean that is no whole number still has two sides */
    load[0] = 8;
    balance_update(&r, 1, 0.25);
    assert_true(bias[0] == -0.5f && bias[1] == 1.0f && bias[2] == -0.75f && bias[3] == 0.5f);
}

/* MaxVio: 0 when even, experts - 1 when one has all, the mean over routers, 0 without any. */
static void test_max_violation(void **state)
{
    (void)state;
    uint64_t even[4] = {5, 5, 5, 5};
    uint64_t one[4] = {0, 20, 0, 0};
    uint64_t none[4] = {0};
    struct router r[3] = {
        {.experts = 4, .load = even}, {.experts = 4, .load = one}, {.experts = 4, .load = none}};
    assert_true(balance_max_violation(r, 1) == 0);
    assert_true(balance_max_violation(r + 1, 1) == 3);
    assert_true(balance_max_violation(r, 3) == 1);
    assert_true(balance_max_violation(NULL, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_bias_update),
        cmocka_unit_test(test_max_violation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
