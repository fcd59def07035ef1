/* Latent attention: output and gradients against the oracle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/layer_fixture.h"

static void build(void *layer, struct builder *b, struct layer_fixture *f)
{
    (void)f;
    mla_build(layer, b, "p.");
}

static void run(struct oracle *o, struct shape s, const double *x, double *y)
{
    o_mla(o, "p.", s.batch, s.seq, x, y);
}

/* Over random shapes: with and without query compression, with and without YaRN, value and key
 * dimensions that differ. */
static void test_mla(void **state)
{
    (void)state;
    double worst = 0;
    for (int trial = 0; trial < 25; trial++) {
        struct layer_fixture f;
        struct mla m = {0};
        layer_start(&f, op_cpu(trial % 2 == 0 ? 1 : 2), build, &m);
        size_t rows = f.shape.rows, h = f.config.hidden_size;
        struct mat x = random_mat(rows, h), y = random_mat(rows, h), dy = random_mat(rows, h),
                   dx = random_mat(rows, h);
        struct layer_case k = {&f,       run,     doubles_of(x), doubles_of(dy), doubles_of(y),
                               rows * h, rows * h};
        mla_forward(&f.ctx, &m, f.shape, x, y);
        mla_backward(&f.ctx, &m, f.shape, x, dy, dx);
        worst = fmax(worst, layer_errors(&k, y, dx));
        assert_true(worst < 1e-4);
        free(x.data), free(y.data), free(dy.data), free(dx.data), free(k.x), free(k.weight),
            free(k.y);
        layer_stop(&f);
    }
    printf("  worst relative error %.2g\n", worst);
    op_cpu(1);
}

/* Fewer sequences' rows than the layer was built for work too (an MTP module's sequences are
 * shorter). */
static void test_shorter(void **state)
{
    (void)state;
    for (int trial = 0; trial < 5; trial++) {
        struct layer_fixture f;
        struct mla m = {0};
        layer_start(&f, op_cpu(1), build, &m);
        f.shape.seq--;
        f.shape.rows = f.shape.batch * f.shape.seq;
        size_t rows = f.shape.rows, h = f.config.hidden_size;
        struct mat x = random_mat(rows, h), y = random_mat(rows, h), dy = random_mat(rows, h),
                   dx = random_mat(rows, h);
        struct layer_case k = {&f,       run,     doubles_of(x), doubles_of(dy), doubles_of(y),
                               rows * h, rows * h};
        mla_forward(&f.ctx, &m, f.shape, x, y);
        mla_backward(&f.ctx, &m, f.shape, x, dy, dx);
        assert_true(layer_errors(&k, y, dx) < 1e-4);
        free(x.data), free(y.data), free(dy.data), free(dx.data), free(k.x), free(k.weight),
            free(k.y);
        layer_stop(&f);
    }
}

int main(void)
{
    random_start("test_layer_mla");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mla),
        cmocka_unit_test(test_shorter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
