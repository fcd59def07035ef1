#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "trainer/balance.h"
#include "trainer/fp8.h"
#include "trainer/optim.h"

enum { N = 37 };

/* Three updates equal AdamW written down again in double; weight decay touches only what decays. */
static void test_adamw(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    struct param params[2] = {{.name = "model.layers.0.mlp.up_proj.weight", .count = N},
                              {.name = "model.norm.weight", .count = N, .is_vector = true}};
    double w[2][N];
    double m[2][N] = {{0}};
    double v[2][N] = {{0}};
    struct train_spec spec = {0};
    spec.optimizer.beta1 = 0.9;
    spec.optimizer.beta2 = 0.95;
    spec.optimizer.eps = 1e-8;
    spec.optimizer.weight_decay = 0.1;
    spec.optimizer.no_decay = DECAY_NORMS;
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

/* MaxVio: 0 when even, experts - 1 when one has all, the mean over routers, NAN without any. */
static void test_max_violation(void **state)
{
    (void)state;
    uint64_t even[4] = {5, 5, 5, 5};
    uint64_t one[4] = {0, 20, 0, 0};
    uint64_t none[4] = {0};
    struct router r[3] = {
        {.experts = 4, .load = even}, {.experts = 4, .load = one}, {.experts = 4, .load = none}};
    assert_true(balance_max_violation(r, 1, NULL) == 0);
    assert_true(balance_max_violation(r + 1, 1, NULL) == 3);
    double each[3];
    assert_true(balance_max_violation(r, 3, each) == 1);
    assert_true(each[0] == 0 && each[1] == 3 && each[2] == 0);
    assert_true(isnan(balance_max_violation(NULL, 0, NULL)));
}

/* Every parameter is in one group, and only the groups named go without decay. */
static void test_decay_groups(void **state)
{
    (void)state;
    static const struct {
        struct param p;
        uint32_t group;
    } cases[] = {
        {{.name = "model.norm.weight", .is_vector = true}, DECAY_NORMS},
        {{.name = "model.layers.3.self_attn.q_a_layernorm.weight", .is_vector = true}, DECAY_NORMS},
        {{.name = "model.embed_tokens.weight"}, DECAY_EMBEDDING},
        {{.name = "lm_head.weight"}, DECAY_HEAD},
        {{.name = "model.layers.3.mlp.gate.weight"}, DECAY_GATE},
        {{.name = "model.layers.3.mlp.gate_proj.weight"}, DECAY_LINEARS},
        {{.name = "model.layers.3.mlp.experts.7.down_proj.weight"}, DECAY_LINEARS},
        {{.name = "model.layers.4.eh_proj.weight"}, DECAY_LINEARS},
    };
    for (uint32_t groups = 0; groups < 32; groups++) {
        struct train_spec spec = {0};
        spec.optimizer.no_decay = groups;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            assert_int_equal(optim_decays(&spec, &cases[i].p), (cases[i].group & groups) == 0);
        }
    }
}

/* Moments in BF16 are BF16 numbers after each step, the weights are not, and the update differs
 * from that of FP32 moments by their rounding alone. */
static void test_bf16_moments(void **state)
{
    (void)state;
    enum { COUNT = 9000, STEPS = 5 };
    const struct op_table *op = op_cpu(1);
    struct param p[2];
    struct optim o[2];
    struct train_spec spec = {.optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}};
    for (int k = 0; k < 2; k++) {
        p[k] = (struct param){.name = "a.weight",
                              .count = COUNT,
                              .weight = op->alloc(4 * COUNT),
                              .grad = op->alloc(4 * COUNT)};
        optim_init(&o[k], op, &p[k], 1, NULL, 0);
        for (uint64_t step = 1; step <= STEPS; step++) {
            for (uint32_t i = 0; i < COUNT; i++) {
                p[k].grad[i] = sinf((float)i * 0.37f + (float)step);
            }
            spec.recipe.moments = k == 0 ? PRECISION_FP32 : PRECISION_BF16;
            optim_step(&o[k], &spec, step, 0.01, 1);
        }
    }
    const struct optim_part *part = &o[1].part[0];
    size_t odd = 0;
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(bf16_round(part->state[OPTIM_M][i]) == part->state[OPTIM_M][i]);
        assert_true(bf16_round(part->state[OPTIM_V][i]) == part->state[OPTIM_V][i]);
        odd += bf16_round(p[1].weight[i]) != p[1].weight[i];
        assert_true(fabsf(p[1].weight[i] - p[0].weight[i]) < 0.01f * 0.02f * STEPS);
    }
    assert_true(odd > COUNT / 2);
    assert_true(memcmp(p[0].weight, p[1].weight, COUNT * sizeof(float)) != 0);
    for (int k = 0; k < 2; k++) {
        optim_fini(&o[k]);
        op->release(p[k].weight), op->release(p[k].grad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decay_groups),  cmocka_unit_test(test_bf16_moments),
        cmocka_unit_test(test_adamw),         cmocka_unit_test(test_bias_update),
        cmocka_unit_test(test_max_violation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
