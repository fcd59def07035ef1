/* Feed-forward layers, dense and mixture: output and gradients against the oracle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/layer_fixture.h"

/* ---- dense */

static void build_ffn(void *layer, struct builder *b, struct layer_fixture *f)
{
    ffn_build(layer, b, "p.", f->shape.rows, f->config.intermediate_size, 0, 0);
}

static void run_ffn(struct oracle *o, struct shape s, const double *x, double *y)
{
    o_ffn(o, "p.", o->c->intermediate_size, s.rows, x, NULL, y);
}

static void test_dense(void **state)
{
    (void)state;
    for (int trial = 0; trial < 20; trial++) {
        struct layer_fixture f;
        struct ffn m = {0};
        size_t offset[2];
        layer_start(&f, op_cpu(1), build_ffn, &m);
        size_t rows = f.shape.rows, h = f.config.hidden_size;
        struct mat x = random_mat(rows, h), y = random_mat(rows, h), dy = random_mat(rows, h),
                   dx = random_mat(rows, h);
        struct layer_case k = {&f,       run_ffn, doubles_of(x), doubles_of(dy), doubles_of(y),
                               rows * h, rows * h};
        ffn_forward(&f.ctx, &m, one_group(rows, offset), x, y);
        ffn_backward(&f.ctx, &m, one_group(rows, offset), x, dy, dx, false);
        assert_true(layer_errors(&k, y, dx) < 1e-4);
        free(x.data), free(y.data), free(dy.data), free(dx.data), free(k.x), free(k.weight),
            free(k.y);
        layer_stop(&f);
    }
}

/* ---- mixture */

static void build_moe(void *layer, struct builder *b, struct layer_fixture *f)
{
    moe_build(layer, b, "p.", &f->router);
}

static void run_moe(struct oracle *o, struct shape s, const double *x, double *y)
{
    o_moe(o, "p.", s.batch, s.seq, x, y);
}

/* skew: the bias sends every token to the same experts, so that others are empty. */
static double check_moe(bool skew, bool *decided)
{
    struct layer_fixture f;
    struct moe m = {0};
    layer_start(&f, op_cpu(1), build_moe, &m);
    size_t rows = f.shape.rows, h = f.config.hidden_size, pairs = 0;
    for (uint32_t e = 0; skew && e < f.router.experts; e++) {
        f.router.bias[e] = -4.0f * (float)e;
        f.oracle.tensor[f.oracle.tensors - 1].value[e] = -4.0 * e;
    }
    struct mat x = random_mat(rows, h), y = random_mat(rows, h), dy = random_mat(rows, h),
               dx = random_mat(rows, h);
    struct layer_case k = {&f,       run_moe, doubles_of(x), doubles_of(dy), doubles_of(y),
                           rows * h, rows * h};
    assert_int_equal(moe_forward(&f.ctx, &m, f.shape, x, y, NULL), 0);
    assert_int_equal(moe_backward(&f.ctx, &m, f.shape, x, dy, dx, NULL), 0);
    layer_objective(&k);
    *decided = f.oracle.margin > 1e-4; /* else FP32 and double may route differently */
    double error = *decided ? layer_errors(&k, y, dx) : 0;
    for (uint32_t e = 0; e < f.router.experts; e++) {
        pairs += f.router.load[e];
        assert_true(!skew || f.router.load[e] == (e < f.config.num_experts_per_tok ? rows : 0));
    }
    assert_int_equal(pairs, rows * f.config.num_experts_per_tok); /* no token is dropped */
    free(x.data), free(y.data), free(dy.data), free(dx.data), free(k.x), free(k.weight), free(k.y);
    layer_stop(&f);
    return error;
}

/* Random groups, shared experts, normalised or not, negative biased scores; gradients include the
 * balance loss. */
static void test_moe(void **state)
{
    (void)state;
    int checked = 0;
    double worst = 0;
    for (int trial = 0; trial < 100 && checked < 25; trial++) {
        bool decided;
        worst = fmax(worst, check_moe(false, &decided));
        assert_true(worst < 1e-4);
        checked += decided;
    }
    printf("  %d mixtures, worst relative error %.2g\n", checked, worst);
    assert_int_equal(checked, 25);
}

static void test_empty_experts(void **state)
{
    (void)state;
    int checked = 0;
    for (int trial = 0; trial < 40 && checked < 8; trial++) {
        bool decided;
        assert_true(check_moe(true, &decided) < 1e-4);
        checked += decided;
    }
    assert_int_equal(checked, 8);
}

int main(void)
{
    random_start("test_layer_moe");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_empty_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
