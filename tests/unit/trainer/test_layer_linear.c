/* The precision recipe of one Linear, against the recipe written out: codes multiplied and summed
 * per tile, scales applied to the sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/layer_fixture.h"
#include "trainer/fp8.h"

enum { PARTS = 2 };

struct case_ {
    struct linear l;
    size_t groups, offset[4], rows;
    struct params params;
    struct ctx c;
    struct mat x, x_in, y, dy, dx;
};

static void start(struct case_ *k, enum precision precision, enum linear_kind kind)
{
    const struct op_table *op = op_cpu(1);
    uint32_t n[PARTS] = {pick(1, 200), pick(1, 200)}, cols = pick(1, 300);
    *k = (struct case_){.groups = pick(1, 3)};
    k->params.op = op;
    k->params.recipe = recipe_of(precision);
    for (int pass = 0; pass < 2; pass++) {
        params_begin(&k->params);
        for (uint32_t g = 0; g < k->groups; g++) {
            struct linear l = {0};
            params_linear(&k->params, &l, kind, (int32_t)g, "", "a", n[0], cols);
            params_linear(&k->params, &l, kind, (int32_t)g, "", "b", n[1], cols);
            k->l = g == 0 ? l : k->l;
        }
        if (pass == 0) {
            params_allocate(&k->params);
        }
    }
    for (size_t i = 0; i < k->params.count; i++) {
        struct param *p = &k->params.item[i];
        for (size_t j = 0; j < p->count; j++) {
            p->weight[j] = (float)(uniform(-1, 1) * ldexp(1, -(int)random_below(6)));
        }
    }
    params_refresh(&k->params);
    for (size_t g = 0; g < k->groups; g++) {
        k->offset[g + 1] = k->offset[g] + (random_one_in(4) ? 0 : random_below(200));
    }
    k->rows = k->offset[k->groups];
    k->x = random_mat(k->rows, cols);
    k->x_in = random_mat(k->rows, cols);
    k->y = random_mat(k->rows, n[0] + n[1]);
    k->dy = random_mat(k->rows, n[0] + n[1]);
    k->dx = random_mat(k->rows, cols);
    for (size_t i = 0; i < k->rows * k->dy.ld; i++) {
        k->dy.data[i] *= 1e-4f; /* gradients are small */
    }
    k->c = (struct ctx){.op = op,
                        .recipe = recipe_of(precision),
                        .grad_scale = 0.25f,
                        .operand_dy = random_floats(k->rows * k->dy.cols, 0, 0),
                        .operand_x = random_floats(k->rows * cols, 0, 0)};
}

static void stop(struct case_ *k)
{
    params_fini(&k->params);
    free(k->x.data), free(k->x_in.data), free(k->y.data), free(k->dy.data), free(k->dx.data);
    free(k->c.operand_dy), free(k->c.operand_x);
}

/* ---- the recipe written out: codes and scales of each tile */

struct tiles {
    size_t rows, cols;
    double *code; /* the value of each element's code */
    float *scale; /* of each element's tile */
};

static struct tiles tiles_of(struct mat m, size_t tile_rows, size_t tile_cols)
{
    struct tiles t = {m.rows, m.cols, o_new(m.rows * m.cols), random_floats(m.rows * m.cols, 0, 0)};
    for (size_t r0 = 0; r0 < m.rows; r0 += tile_rows) {
        for (size_t c0 = 0; c0 < m.cols; c0 += tile_cols) {
            float amax = 1e-4f;
            for (size_t r = r0; r < r0 + tile_rows && r < m.rows; r++) {
                for (size_t c = c0; c < c0 + tile_cols && c < m.cols; c++) {
                    amax = fmaxf(amax, fabsf(m.data[r * m.ld + c]));
                }
            }
            for (size_t r = r0; r < r0 + tile_rows && r < m.rows; r++) {
                for (size_t c = c0; c < c0 + tile_cols && c < m.cols; c++) {
                    t.scale[r * m.cols + c] = amax / 448.0f;
                    t.code[r * m.cols + c] =
                        (double)fp8_decode(fp8_encode(m.data[r * m.ld + c] / (amax / 448.0f)));
                }
            }
        }
    }
    return t;
}

static void tiles_free(struct tiles *t)
{
    free(t->code), free(t->scale);
}

static double value(const struct tiles *t, size_t r, size_t c)
{
    return t->code[r * t->cols + c] * (double)t->scale[r * t->cols + c];
}

/* out[r, i] += sum over j of a[r, j] b[i, j] in tiles of 128 along j: sums of code products (exact
 * in FP32's range), promoted to FP32 with the two scales, as the published kernels do. */
static float block_scaled_dot(const struct tiles *a, size_t r, const struct tiles *b, size_t i)
{
    float total = 0;
    for (size_t j0 = 0; j0 < a->cols; j0 += 128) {
        double partial = 0;
        for (size_t j = j0; j < j0 + 128 && j < a->cols; j++) {
            partial += a->code[r * a->cols + j] * b->code[i * b->cols + j];
        }
        total += (float)partial * (a->scale[r * a->cols + j0] * b->scale[i * b->cols + j0]);
    }
    return total;
}

static void check_part(struct case_ *k, size_t g, size_t part, size_t first_col)
{
    size_t rows = k->offset[g + 1] - k->offset[g], n = k->l.part[part];
    struct param *p = &k->params.item[g * PARTS + part];
    struct mat x = mat_rows(k->x, k->offset[g], rows);
    struct mat y = mat_cols(mat_rows(k->y, k->offset[g], rows), first_col, n);
    struct tiles xt = tiles_of(x, 1, 128),
                 wt = tiles_of(mat_of(p->weight, p->rows, p->cols), 128, 128);
    double *wanted = o_new(rows * n);
    for (size_t i = 0; i < rows * n; i++) {
        wanted[i] = (double)block_scaled_dot(&xt, i / n, &wt, i % n);
    }
    assert_true(mat_error(y, wanted, 1e-3) < 1e-6);
    free(wanted);

    /* Wgrad: 128 x 1 tiles along the rows, of dy and of the operand that Fprop had */
    struct mat dy = mat_cols(mat_rows(k->dy, k->offset[g], rows), first_col, n);
    struct tiles dyt = tiles_of(dy, 128, 1),
                 xct = tiles_of(mat_rows(k->x_in, k->offset[g], rows), 128, 1);
    wanted = o_new(p->count);
    for (size_t i = 0; i < p->count; i++) {
        for (size_t r = 0; r < rows; r++) {
            wanted[i] += 0.25 * value(&dyt, r, i / p->cols) * value(&xct, r, i % p->cols);
        }
    }
    assert_true(array_error(p->grad, wanted, p->count, 1e-5) < 1e-6);
    free(wanted), tiles_free(&xt), tiles_free(&wt), tiles_free(&dyt), tiles_free(&xct);
}

static void check_dgrad(struct case_ *k, size_t g)
{
    size_t rows = k->offset[g + 1] - k->offset[g], cols = k->x.cols;
    double *wanted = o_new(rows * cols);
    for (size_t part = 0, first = 0; part < PARTS; first += k->l.part[part], part++) {
        struct param *p = &k->params.item[g * PARTS + part];
        struct tiles dyt =
            tiles_of(mat_cols(mat_rows(k->dy, k->offset[g], rows), first, p->rows), 1, 128);
        struct tiles wt = tiles_of(mat_of(p->weight, p->rows, p->cols), 128, 128);
        for (size_t i = 0; i < rows * cols; i++) {
            for (size_t j = 0; j < p->rows; j++) {
                wanted[i] += value(&dyt, i / cols, j) * value(&wt, j, i % cols);
            }
        }
        tiles_free(&dyt), tiles_free(&wt);
    }
    assert_true(mat_error(mat_rows(k->dx, k->offset[g], rows), wanted, 1e-5) < 1e-6);
    free(wanted);
}

/* Fprop, Dgrad and Wgrad of an FP8 Linear equal the recipe with block-scaled accumulation, ragged
 * tiles and expert groups included; a tile never spans two Linears. */
static void test_fp8(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        struct case_ k;
        start(&k, PRECISION_FP8, LINEAR_RECIPE);
        struct op_groups groups = {k.groups, k.offset};
        assert_true(linear_rounds_input(&k.c.recipe, &k.l));
        linear_round(&k.c, &k.l, groups, k.x, k.x_in);
        linear_forward(&k.c, &k.l, groups, k.x_in, k.y);
        linear_backward_input(&k.c, &k.l, groups, k.dy, k.dx, false);
        linear_backward_weight(&k.c, &k.l, groups, k.dy, k.x_in);
        for (size_t g = 0; g < k.groups; g++) {
            check_part(&k, g, 0, 0);
            check_part(&k, g, 1, k.l.part[0]);
            check_dgrad(&k, g);
        }
        stop(&k);
    }
}

/* What an FP8 run keeps in high precision, and the gate in any run, multiplies the very masters and
 * the very inputs. */
static void test_high_precision_is_exact(void **state)
{
    (void)state;
    static const struct {
        enum precision precision;
        enum linear_kind kind;
    } cases[] = {{PRECISION_FP8, LINEAR_HIGH},
                 {PRECISION_FP8, LINEAR_GATE},
                 {PRECISION_BF16, LINEAR_GATE},
                 {PRECISION_FP32, LINEAR_RECIPE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct case_ k;
        start(&k, cases[i].precision, cases[i].kind);
        struct op_groups groups = {k.groups, k.offset};
        float *dw = random_floats(k.params.expert.grad.size / sizeof(float), 0, 0);
        struct mat plain = random_mat(k.rows, k.y.cols), dplain = random_mat(k.rows, k.x.cols);
        assert_false(linear_rounds_input(&k.c.recipe, &k.l));
        assert_ptr_equal(k.l.operand, k.l.w);
        linear_forward(&k.c, &k.l, groups, k.x, k.y);
        linear_backward_input(&k.c, &k.l, groups, k.dy, k.dx, false);
        linear_backward_weight(&k.c, &k.l, groups, k.dy, k.x);
        k.c.op->linear(groups, k.x, k.l.w, plain);
        k.c.op->linear_dx(groups, k.dy, k.l.w, dplain, false);
        k.c.op->linear_dw(groups, k.dy, k.x, 0.25f, dw);
        for (size_t r = 0; r < k.rows; r++) {
            assert_memory_equal(plain.data + r * plain.ld, k.y.data + r * k.y.ld,
                                k.y.cols * sizeof(float));
            assert_memory_equal(dplain.data + r * dplain.ld, k.dx.data + r * k.dx.ld,
                                k.dx.cols * sizeof(float));
        }
        assert_memory_equal(dw, k.l.grad, k.groups * k.l.n * k.l.k * sizeof(float));
        free(dw), free(plain.data), free(dplain.data);
        stop(&k);
    }
}

/* A BF16 run multiplies rounded weights, rounded gradients and the activations as stored (rounded
 * by store). */
static void test_bf16(void **state)
{
    (void)state;
    for (int trial = 0; trial < 5; trial++) {
        struct case_ k;
        start(&k, PRECISION_BF16, trial % 2 == 0 ? LINEAR_RECIPE : LINEAR_HIGH);
        struct op_groups groups = {k.groups, k.offset};
        size_t count = k.groups * k.l.n * k.l.k;
        float *w = random_floats(count, 0, 0), *dw = random_floats(count, 0, 0);
        for (size_t i = 0; i < count; i++) {
            w[i] = bf16_round(k.l.w[i]);
        }
        store(&k.c, k.x);
        for (size_t i = 0; i < k.rows * k.x.cols; i++) {
            assert_int_equal(float_bits(k.x.data[i / k.x.cols * k.x.ld + i % k.x.cols]) & 0xFFFF,
                             0);
        }
        struct mat plain = random_mat(k.rows, k.y.cols), dplain = random_mat(k.rows, k.x.cols),
                   dy = random_mat(k.rows, k.y.cols);
        k.c.op->copy(k.dy, dy);
        store(&k.c, dy);
        linear_forward(&k.c, &k.l, groups, k.x, k.y);
        linear_backward_input(&k.c, &k.l, groups, k.dy, k.dx, false);
        linear_backward_weight(&k.c, &k.l, groups, k.dy, k.x);
        k.c.op->linear(groups, k.x, w, plain);
        k.c.op->linear_dx(groups, dy, w, dplain, false);
        k.c.op->linear_dw(groups, dy, k.x, 0.25f, dw);
        for (size_t r = 0; r < k.rows; r++) {
            assert_memory_equal(plain.data + r * plain.ld, k.y.data + r * k.y.ld,
                                k.y.cols * sizeof(float));
            assert_memory_equal(dplain.data + r * dplain.ld, k.dx.data + r * k.dx.ld,
                                k.dx.cols * sizeof(float));
        }
        assert_memory_equal(dw, k.l.grad, count * sizeof(float));
        free(w), free(dw), free(plain.data), free(dplain.data), free(dy.data);
        stop(&k);
    }
}

int main(void)
{
    random_start("test_layer_linear");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_high_precision_is_exact),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
