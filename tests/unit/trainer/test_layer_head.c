/* The output head, whose logits are never all in memory: losses, gradients and logits against the
 * formula in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/layer_fixture.h"

struct module {
    struct linear lm;
    struct head head;
};

static void build(void *layer, struct builder *b, struct layer_fixture *f)
{
    struct module *m = layer;
    f->config.vocab_size = 40009; /* several chunks of rows, the last one short */
    f->config.hidden_size = 5;
    b->shape = f->shape = (struct shape){1, 150, 150};
    m->lm = (struct linear){0};
    params_linear(b->params, &m->lm, LINEAR_HIGH, -1, "", "lm_head.weight", f->config.vocab_size,
                  f->config.hidden_size);
    head_build(&m->head, b, &m->lm);
}

/* loss, dx = scale (p - e_target) W, dW = grad_scale * scale (p - e_target)^T x */
static double formula(const struct module *m, struct mat x, const int32_t *target, double scale,
                      double grad_scale, double *logits, double *dx, double *dw)
{
    size_t vocab = m->lm.n, h = m->lm.k;
    double loss = 0;
    for (size_t r = 0; r < x.rows; r++) {
        double *z = logits + r * vocab, sum = 0;
        for (size_t v = 0; v < vocab; v++) {
            for (size_t i = 0; i < h; i++) {
                z[v] += (double)x.data[r * x.ld + i] * (double)m->lm.w[v * h + i];
            }
        }
        for (size_t v = 0; v < vocab; v++) {
            sum += exp(z[v]);
        }
        loss += log(sum) - z[target[r]];
        for (size_t v = 0; v < vocab; v++) {
            double d = scale * (exp(z[v]) / sum - (v == (size_t)target[r]));
            for (size_t i = 0; i < h; i++) {
                dx[r * h + i] += d * (double)m->lm.w[v * h + i];
                dw[v * h + i] += grad_scale * d * (double)x.data[r * x.ld + i];
            }
        }
    }
    return loss;
}

static void test_chunks(void **state)
{
    (void)state;
    struct layer_fixture f;
    struct module m = {0};
    layer_start(&f, op_cpu(1), build, &m);
    assert_true(m.head.logits.rows < f.shape.rows && f.shape.rows % m.head.logits.rows != 0);
    size_t rows = f.shape.rows, h = m.lm.k, vocab = m.lm.n;
    struct mat x = random_mat(rows, h), dx = random_mat(rows, h);
    int32_t *target = calloc(rows, sizeof *target);
    for (size_t r = 0; r < rows; r++) {
        target[r] = (int32_t)random_below(vocab);
    }
    double *z = o_new(rows * vocab), *wanted_dx = o_new(rows * h), *wanted_dw = o_new(vocab * h);
    double wanted = formula(&m, x, target, 0.3, 0.5, z, wanted_dx, wanted_dw);
    double forward = head_loss(&f.ctx, &m.head, x, target, 0, mat_of(NULL, 0, 0));
    for (size_t i = 0; i < vocab * h; i++) {
        assert_true(m.lm.grad[i] == 0); /* forward alone touches no gradient */
    }
    double trained = head_loss(&f.ctx, &m.head, x, target, 0.3f, dx);
    assert_true(fabs(forward - wanted) < 1e-6 * wanted && fabs(trained - wanted) < 1e-6 * wanted);
    assert_true(mat_error(dx, wanted_dx, 0) < 1e-5);
    assert_true(array_error(m.lm.grad, wanted_dw, vocab * h, 0) < 1e-5);
    float *logits = random_floats(rows * vocab, 0, 0);
    head_logits(&f.ctx, &m.head, x, logits);
    assert_true(array_error(logits, z, rows * vocab, 0) < 1e-6);
    free(x.data), free(dx.data), free(target), free(z), free(wanted_dx), free(wanted_dw),
        free(logits);
    layer_stop(&f);
}

int main(void)
{
    random_start("test_layer_head");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
