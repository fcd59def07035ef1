/* The operations that work row by row (norm, rotation, SwiGLU, embedding, mixture, loss) and on
 * flat arrays: against their definitions in double, gradients against central differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/op_fixture.h"

static const struct op_table *random_op(void)
{
    return op_cpu(random_one_in(2) ? 1 : 3);
}

/* ---- rmsnorm */

struct norm {
    size_t rows, n;
    double *x, *w, *weight, eps;
};

static double norm_at(const struct norm *p, size_t r, size_t c)
{
    double sum = 0;
    for (size_t i = 0; i < p->n; i++) {
        sum += pow(p->x[r * p->n + i], 2);
    }
    return p->w[c] * p->x[r * p->n + c] / sqrt(sum / (double)p->n + p->eps);
}

static double norm_objective(void *ctx)
{
    const struct norm *p = ctx;
    double total = 0;
    for (size_t i = 0; i < p->rows * p->n; i++) {
        total += p->weight[i] * norm_at(p, i / p->n, i % p->n);
    }
    return total;
}

/* y and both gradients; dx written or added, dw scaled and added. */
static void test_rmsnorm(void **state)
{
    (void)state;
    for (int trial = 0; trial < 40; trial++) {
        const struct op_table *op = random_op();
        size_t rows = 1 + random_below(5), n = 4 + random_below(40);
        bool add = random_one_in(2);
        struct mat x = random_mat(rows, n), y = random_mat(rows, n), dy = random_mat(rows, n);
        struct mat dx = random_mat(rows, n);
        float *w = random_floats(n, 0.5, 1.5), *dw = random_floats(n, -1, 1), rstd[5];
        struct norm p = {
            rows, n, doubles_of(x), doubles(w, n), doubles_of(dy), random_one_in(2) ? 1e-6 : 0.1};
        double *before_x = doubles_of(dx), *before_w = doubles(dw, n), *wanted = doubles_of(x);
        for (size_t i = 0; i < rows * n; i++) {
            wanted[i] = norm_at(&p, i / n, i % n);
        }
        op->rmsnorm(x, w, (float)p.eps, y, rstd);
        assert_true(mat_error(y, wanted, 0) < 1e-6);
        op->rmsnorm_backward(x, w, rstd, dy, dx, add, 0.5f, dw);
        double *d = differences(norm_objective, &p, p.x, rows * n);
        for (size_t i = 0; i < rows * n; i++) {
            d[i] += add ? before_x[i] : 0;
        }
        assert_true(mat_error(dx, d, 0.1) < 1e-5);
        double *d_w = differences(norm_objective, &p, p.w, n);
        for (size_t i = 0; i < n; i++) {
            d_w[i] = before_w[i] + 0.5 * d_w[i];
        }
        assert_true(array_error(dw, d_w, n, 1e-2) < 1e-5);
        free(x.data), free(y.data), free(dy.data), free(dx.data), free(w), free(dw), free(p.x),
            free(p.w);
        free(p.weight), free(before_x), free(before_w), free(wanted), free(d), free(d_w);
    }
}

/* ---- rotation and keys */

/* A rotation keeps lengths, its inverse undoes it, and query . key depends on the distance of their
 * positions only. */
static void test_rope(void **state)
{
    (void)state;
    enum { SEQ = 11, DIM = 6, HEADS = 3, ROW = HEADS * 8 + 1 };
    const struct op_table *op = op_cpu(1);
    float table[SEQ * DIM];
    for (size_t t = 0; t < SEQ; t++) {
        for (size_t i = 0; i < DIM; i += 2) {
            double angle = (double)t * pow(0.3, (double)i);
            table[t * DIM + i] = (float)cos(angle);
            table[t * DIM + i + 1] = (float)sin(angle);
        }
    }
    float *x = random_floats(2 * SEQ * ROW, -1, 1), *kept = malloc(2 * SEQ * ROW * sizeof *kept);
    for (size_t t = 1; t < 2 * SEQ; t++) {
        memcpy(x + t * ROW, x,
               ROW * sizeof *x); /* the same vectors at every position of two sequences */
    }
    memcpy(kept, x, 2 * SEQ * ROW * sizeof *x);
    struct op_heads heads = {x + 2, ROW, 8};
    op->rope(heads, 2 * SEQ, SEQ, HEADS, DIM, table, false);
    assert_memory_equal(x, x + SEQ * ROW,
                        SEQ * ROW * sizeof *x); /* positions restart with the sequence */
    for (size_t t = 0; t < SEQ; t++) {
        for (size_t i = 0; i < ROW; i++) {
            bool rotated = i >= 2 && i < 2 + HEADS * 8 && (i - 2) % 8 < DIM;
            assert_true(rotated || x[t * ROW + i] == kept[i]); /* nothing else is touched */
        }
    }
    for (size_t t = 0; t + 3 < SEQ; t++) {
        double dot = 0, first = 0;
        for (size_t i = 0; i < DIM; i++) {
            dot += (double)x[t * ROW + 2 + i] * (double)x[(t + 3) * ROW + 10 + i];
            first += (double)x[2 + i] * (double)x[3 * ROW + 10 + i];
        }
        assert_true(fabs(dot - first) < 1e-6);
    }
    /* adjacent pairs: (x0, x1) turns by the angle of pair 0 */
    double c = (double)table[DIM], s = (double)table[DIM + 1];
    assert_true(fabs((double)x[ROW + 2] - ((double)kept[2] * c - (double)kept[3] * s)) < 1e-6);
    assert_true(fabs((double)x[ROW + 3] - ((double)kept[2] * s + (double)kept[3] * c)) < 1e-6);
    op->rope(heads, 2 * SEQ, SEQ, HEADS, DIM, table, true);
    for (size_t i = 0; i < 2 * SEQ * ROW; i++) {
        assert_true(fabsf(x[i] - kept[i]) < 1e-6f);
    }
    free(x), free(kept);
}

/* Keys are put together per head and taken apart, the shared part summed over heads. */
static void test_keys(void **state)
{
    (void)state;
    enum { ROWS = 4, HEADS = 3, NOPE = 5, SHARED = 2, K = NOPE + SHARED };
    const struct op_table *op = op_cpu(1);
    float *nope = random_floats(ROWS * HEADS * 9, -1, 1),
          *k = random_floats(ROWS * HEADS * K, -1, 1);
    struct mat shared = random_mat(ROWS, SHARED);
    op->keys((struct op_heads){nope, HEADS * 9, 9}, NOPE, shared, HEADS,
             (struct op_heads){k, HEADS * K, K});
    for (size_t t = 0; t < ROWS; t++) {
        for (size_t h = 0; h < HEADS; h++) {
            assert_memory_equal(k + (t * HEADS + h) * K, nope + (t * HEADS + h) * 9,
                                NOPE * sizeof *k);
            assert_memory_equal(k + (t * HEADS + h) * K + NOPE, shared.data + t * shared.ld,
                                SHARED * sizeof *k);
        }
    }
    op->keys_backward((struct op_heads){k, HEADS * K, K}, HEADS,
                      (struct op_heads){nope, HEADS * 9, 9}, NOPE, shared);
    for (size_t t = 0; t < ROWS; t++) {
        for (size_t i = 0; i < SHARED; i++) {
            float sum = 0;
            for (size_t h = 0; h < HEADS; h++) {
                sum += k[(t * HEADS + h) * K + NOPE + i];
            }
            assert_true(fabsf(shared.data[t * shared.ld + i] - sum) < 1e-6f);
        }
    }
    free(nope), free(k), free(shared.data);
}

/* ---- swiglu */

struct glu {
    size_t rows, n;
    double *gu, *weight;
};

static double glu_at(const struct glu *p, size_t r, size_t c)
{
    double g = p->gu[r * 2 * p->n + c], u = p->gu[r * 2 * p->n + p->n + c];
    return g / (1 + exp(-g)) * u;
}

static double glu_objective(void *ctx)
{
    const struct glu *p = ctx;
    double total = 0;
    for (size_t i = 0; i < p->rows * p->n; i++) {
        total += p->weight[i] * glu_at(p, i / p->n, i % p->n);
    }
    return total;
}

static void test_swiglu(void **state)
{
    (void)state;
    for (int trial = 0; trial < 40; trial++) {
        const struct op_table *op = random_op();
        size_t rows = 1 + random_below(4), n = 1 + random_below(40);
        struct mat gu = random_mat(rows, 2 * n), out = random_mat(rows, n),
                   dout = random_mat(rows, n);
        struct mat dgu = random_mat(rows, 2 * n), again = random_mat(rows, n);
        op->scale(gu.data, 8, rows * gu.ld); /* into the flat parts of the sigmoid */
        struct glu p = {rows, n, doubles_of(gu), doubles_of(dout)};
        double *wanted = doubles_of(out);
        for (size_t i = 0; i < rows * n; i++) {
            wanted[i] = glu_at(&p, i / n, i % n);
        }
        op->swiglu(gu, out);
        assert_true(mat_error(out, wanted, 0) < 1e-6);
        op->swiglu_backward(gu, dout, dgu, again);
        double *d = differences(glu_objective, &p, p.gu, rows * 2 * n);
        assert_true(mat_error(dgu, d, 0) < 1e-6);
        for (size_t r = 0; r < rows; r++) {
            assert_memory_equal(again.data + r * again.ld, out.data + r * out.ld,
                                n * sizeof(float));
        }
        free(gu.data), free(out.data), free(dout.data), free(dgu.data), free(again.data);
        free(p.gu), free(p.weight), free(wanted), free(d);
    }
}

/* ---- embedding */

/* Rows are looked up; gradients of repeated tokens add up. */
static void test_embed(void **state)
{
    (void)state;
    enum { VOCAB = 7, ROWS = 30 };
    for (int trial = 0; trial < 20; trial++) {
        const struct op_table *op = random_op();
        size_t n = 1 + random_below(150);
        int32_t token[ROWS];
        float *table = random_floats(VOCAB * n, -1, 1), *d = random_floats(VOCAB * n, -1, 1);
        struct mat y = random_mat(ROWS, n);
        for (size_t r = 0; r < ROWS; r++) {
            token[r] = (int32_t)random_below(VOCAB);
        }
        double *wanted = doubles(d, VOCAB * n);
        for (size_t r = 0; r < ROWS; r++) {
            for (size_t i = 0; i < n; i++) {
                wanted[(size_t)token[r] * n + i] += 2 * (double)y.data[r * y.ld + i];
            }
        }
        op->embed_backward(token, y, 2, d);
        assert_true(array_error(d, wanted, VOCAB * n, 0) < 1e-6);
        op->embed(token, table, y);
        for (size_t r = 0; r < ROWS; r++) {
            assert_memory_equal(y.data + r * y.ld, table + (size_t)token[r] * n, n * sizeof *table);
        }
        free(table), free(d), free(y.data), free(wanted);
    }
}

/* ---- mixture */

/* Gathering, weighing and summing rows, and the way back. */
static void test_combine(void **state)
{
    (void)state;
    for (int trial = 0; trial < 30; trial++) {
        const struct op_table *op = random_op();
        size_t tokens = 1 + random_below(9), top_k = 1 + random_below(4), n = 1 + random_below(40);
        size_t pairs = tokens * top_k;
        struct mat y = random_mat(pairs, n), out = random_mat(tokens, n), dy = random_mat(pairs, n);
        float *weight = random_floats(pairs, -1, 1), *dweight = random_floats(pairs, -1, 1);
        uint32_t *place = malloc(pairs * sizeof *place);
        for (uint32_t i = 0; i < pairs; i++) { /* a random permutation */
            uint32_t j = (uint32_t)random_below(i + 1);
            place[i] = place[j];
            place[j] = i;
        }
        double *wanted = doubles_of(out), *plain = doubles_of(out), *from = doubles_of(y), *dout;
        for (size_t i = 0; i < pairs * n; i++) {
            size_t pair = i / n, c = i % n;
            wanted[pair / top_k * n + c] += (double)weight[pair] * from[place[pair] * n + c];
            plain[pair / top_k * n + c] += from[place[pair] * n + c];
        }
        struct mat copy = random_mat(tokens, n);
        op->copy(out, copy);
        op->combine(y, place, NULL, top_k, copy);
        assert_true(mat_error(copy, plain, 0) < 1e-6);
        op->combine(y, place, weight, top_k, out);
        assert_true(mat_error(out, wanted, 0) < 1e-6);
        dout = doubles_of(out);
        op->combine_backward(out, y, place, weight, top_k, dy, dweight);
        for (size_t pair = 0; pair < pairs; pair++) {
            double dot = 0;
            for (size_t c = 0; c < n; c++) {
                double d = dout[pair / top_k * n + c];
                dot += d * from[place[pair] * n + c];
                assert_true(fabs((double)dy.data[place[pair] * dy.ld + c] -
                                 d * (double)weight[pair]) < 1e-5);
            }
            assert_true(fabs((double)dweight[pair] - dot) < 1e-4);
        }
        struct mat rows = random_mat(pairs, n);
        op->gather(y, place, rows);
        for (size_t i = 0; i < pairs; i++) {
            assert_memory_equal(rows.data + i * rows.ld, y.data + place[i] * y.ld,
                                n * sizeof(float));
        }
        free(y.data), free(out.data), free(dy.data), free(weight), free(dweight), free(place),
            free(wanted);
        free(plain), free(from), free(dout), free(copy.data), free(rows.data);
    }
}

/* ---- loss */

struct loss {
    size_t rows, vocab;
    double *logits;
    const int32_t *target;
};

static double loss_objective(void *ctx)
{
    const struct loss *p = ctx;
    double total = 0;
    for (size_t r = 0; r < p->rows; r++) {
        double sum = 0, *z = p->logits + r * p->vocab;
        for (size_t i = 0; i < p->vocab; i++) {
            sum += exp(z[i] - z[p->target[r]]);
        }
        total += log(sum);
    }
    return total;
}

static void test_cross_entropy(void **state)
{
    (void)state;
    for (int trial = 0; trial < 40; trial++) {
        const struct op_table *op = random_op();
        size_t rows = 1 + random_below(5), vocab = 1 + random_below(60);
        struct mat z = random_mat(rows, vocab), copy = random_mat(rows, vocab);
        int32_t target[5];
        float loss[5];
        op->scale(z.data, 5, rows * z.ld);
        for (size_t r = 0; r < rows; r++) {
            target[r] = (int32_t)random_below(vocab);
        }
        struct loss p = {rows, vocab, doubles_of(z), target};
        double *d = differences(loss_objective, &p, p.logits, rows * vocab),
               wanted = loss_objective(&p);
        for (size_t i = 0; i < rows * vocab; i++) {
            d[i] *= 0.5;
        }
        op->copy(z, copy);
        op->cross_entropy(copy, target, 0, loss);
        assert_true(fabs(op->sum(loss, rows) - wanted) < 1e-6 * wanted + 1e-6);
        op->cross_entropy(z, target, 0.5f, loss);
        assert_true(fabs(op->sum(loss, rows) - wanted) < 1e-6 * wanted + 1e-6);
        assert_true(mat_error(z, d, 1e-2) < 1e-5);
        free(z.data), free(copy.data), free(p.logits), free(d);
    }
}

/* Logits that would overflow exp give a finite loss; a NaN gives a NaN. */
static void test_cross_entropy_extremes(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    float z[] = {1e30f, -1e30f, 0, 1000, 1001, 1002}, loss[2];
    int32_t target[] = {0, 2};
    op->cross_entropy(mat_of(z, 2, 3), target, 1, loss);
    assert_true(loss[0] == 0);
    assert_true(fabsf(loss[1] - 0.40760597f) < 1e-6f);
    float poisoned[] = {0, NAN, 1};
    op->cross_entropy(mat_of(poisoned, 1, 3), target, 1, loss);
    assert_true(isnan(loss[0]));
}

/* ---- flat arrays */

static void test_sums(void **state)
{
    (void)state;
    for (int trial = 0; trial < 50; trial++) {
        const struct op_table *op = random_op();
        size_t n = random_below(2000);
        float *x = random_floats(n, -1, 1);
        double sum = 0, squares = 0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)x[i];
            squares += (double)x[i] * (double)x[i];
        }
        assert_true(fabs(op->sum(x, n) - sum) < 1e-12 * (double)(n + 1));
        assert_true(fabs(op->sum_squares(x, n) - squares) < 1e-12 * (double)(n + 1));
        free(x);
    }
}

/* Five steps of decoupled AdamW equal the algorithm in double. */
static void test_adamw(void **state)
{
    (void)state;
    enum { N = 100003 };
    const double lr = 1e-2, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, scale = 0.5;
    for (int threads = 1; threads <= 3; threads += 2) {
        const struct op_table *op = op_cpu(threads);
        float *w = random_floats(N, -1, 1), *m = random_floats(N, 0, 0),
              *v = random_floats(N, 0, 0);
        double *dw = doubles(w, N), *dm = doubles(m, N), *dv = doubles(v, N);
        for (int t = 1; t <= 5; t++) {
            float *g = random_floats(N, -1, 1);
            op->adamw(w, m, v, g, N, (float)scale, (float)lr, b1, b2, (float)eps, (float)decay,
                      (float)(1 - pow(b1, t)), (float)(1 - pow(b2, t)));
            for (size_t i = 0; i < N; i++) {
                double x = scale * (double)g[i];
                dm[i] = b1 * dm[i] + (1 - b1) * x;
                dv[i] = b2 * dv[i] + (1 - b2) * x * x;
                dw[i] -= lr * (dm[i] / (1 - pow(b1, t)) / (sqrt(dv[i] / (1 - pow(b2, t))) + eps) +
                               decay * dw[i]);
            }
            free(g);
        }
        assert_true(array_error(w, dw, N, 0) < 1e-6);
        assert_true(array_error(m, dm, N, 0) < 1e-6);
        assert_true(array_error(v, dv, N, 0) < 1e-6);
        free(w), free(m), free(v), free(dw), free(dm), free(dv);
    }
    op_cpu(1);
}

/* Memory is zeroed and aligned. */
static void test_memory(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    for (size_t bytes = 0; bytes < 5000; bytes += 1 + random_below(300)) {
        unsigned char *p = op->alloc(bytes);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xAA, bytes);
        op->release(p);
    }
    op->release(NULL);
}

int main(void)
{
    random_start("test_op_rows");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),       cmocka_unit_test(test_rope),
        cmocka_unit_test(test_keys),          cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_embed),         cmocka_unit_test(test_combine),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_cross_entropy_extremes),
        cmocka_unit_test(test_sums),          cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
