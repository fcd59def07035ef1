/* Products with weights, grouped and not, on one thread and several, against plain loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/op_fixture.h"

enum { GROUPS_MAX = 6 };

struct problem {
    size_t groups, n, k, rows, offset[GROUPS_MAX + 1];
    struct mat x, y, dx;
    float *w, *dw;
};

static struct problem random_problem(void)
{
    struct problem p = {.groups = 1 + random_below(GROUPS_MAX),
                        .n = 1 + random_below(70),
                        .k = 1 + random_below(70)};
    for (size_t g = 0; g < p.groups; g++) {
        p.offset[g + 1] = p.offset[g] + (random_one_in(4) ? 0 : random_below(50));
    }
    p.rows = p.offset[p.groups];
    p.x = random_mat(p.rows, p.k);
    p.y = random_mat(p.rows, p.n);
    p.dx = random_mat(p.rows, p.k);
    p.w = random_floats(p.groups * p.n * p.k, -1, 1);
    p.dw = random_floats(p.groups * p.n * p.k, -1, 1);
    return p;
}

static void release(struct problem *p)
{
    free(p->x.data), free(p->y.data), free(p->dx.data), free(p->w), free(p->dw);
}

static size_t group_of(const struct problem *p, size_t row)
{
    size_t g = 0;
    while (row >= p->offset[g + 1]) {
        g++;
    }
    return g;
}

static double at(struct mat m, size_t r, size_t c)
{
    return (double)m.data[r * m.ld + c];
}

static void check_forward(const struct op_table *op, struct problem *p)
{
    double *wanted = calloc(p->rows * p->n + 1, sizeof *wanted);
    for (size_t i = 0; i < p->rows * p->n; i++) {
        size_t r = i / p->n, c = i % p->n, g = group_of(p, r);
        for (size_t j = 0; j < p->k; j++) {
            wanted[i] += at(p->x, r, j) * (double)p->w[(g * p->n + c) * p->k + j];
        }
    }
    op->linear((struct op_groups){p->groups, p->offset}, p->x, p->w, p->y);
    assert_true(mat_error(p->y, wanted, 1e-3) < 1e-6);
    free(wanted);
}

static void check_dx(const struct op_table *op, struct problem *p, bool add)
{
    double *wanted = doubles_of(p->dx);
    for (size_t i = 0; i < p->rows * p->k; i++) {
        size_t r = i / p->k, c = i % p->k, g = group_of(p, r);
        wanted[i] = add ? wanted[i] : 0;
        for (size_t j = 0; j < p->n; j++) {
            wanted[i] += at(p->y, r, j) * (double)p->w[(g * p->n + j) * p->k + c];
        }
    }
    op->linear_dx((struct op_groups){p->groups, p->offset}, p->y, p->w, p->dx, add);
    assert_true(mat_error(p->dx, wanted, 1e-3) < 1e-6);
    free(wanted);
}

static void check_dw(const struct op_table *op, struct problem *p)
{
    size_t count = p->groups * p->n * p->k;
    double *wanted = doubles(p->dw, count);
    for (size_t r = 0; r < p->rows; r++) {
        for (size_t i = 0; i < p->n * p->k; i++) {
            wanted[group_of(p, r) * p->n * p->k + i] +=
                0.25 * at(p->y, r, i / p->k) * at(p->x, r, i % p->k);
        }
    }
    op->linear_dw((struct op_groups){p->groups, p->offset}, p->y, p->x, 0.25f, p->dw);
    assert_true(array_error(p->dw, wanted, count, 1e-3) < 1e-6);
    free(wanted);
}

/* y, dx (written and added) and dw (scaled, added) for random shapes with empty groups, on 1 and 3
 * threads. */
static void test_linear(void **state)
{
    (void)state;
    for (int trial = 0; trial < 300; trial++) {
        const struct op_table *op = op_cpu(trial % 2 == 0 ? 1 : 3);
        struct problem p = random_problem();
        check_forward(op, &p);
        check_dx(op, &p, trial % 4 < 2);
        check_dw(op, &p);
        release(&p);
    }
    op_cpu(1);
}

/* The same call twice gives the same bits, whatever the threads. */
static void test_reproducible(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        const struct op_table *op = op_cpu(threads);
        struct mat x = mat_of(random_floats(300 * 200, -1, 1), 300, 200);
        float *w = random_floats(150 * 200, -1, 1), *first = malloc(300 * 150 * sizeof *first);
        struct mat y = mat_of(random_floats(300 * 150, -1, 1), 300, 150);
        size_t offset[] = {0, 300};
        for (int i = 0; i < 20; i++) {
            op->linear((struct op_groups){1, offset}, x, w, y);
            if (i == 0) {
                memcpy(first, y.data, 300 * 150 * sizeof *first);
            }
            assert_memory_equal(first, y.data, 300 * 150 * sizeof *first);
        }
        free(x.data), free(y.data), free(w), free(first);
    }
    op_cpu(1);
}

int main(void)
{
    random_start("test_op_linear");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_reproducible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
