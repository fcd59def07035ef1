/* Attention against its definition in double, and its gradients against central differences of
 * that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/op_fixture.h"

struct problem {
    struct op_attention a;
    size_t tokens;
    double *q, *k, *v,
        *weight; /* dense [tokens, heads, dim]; weight: of the outputs in the objective */
};

static void attend(const struct problem *p, double *out)
{
    const struct op_attention *a = &p->a;
    double *score = malloc(a->seq * sizeof *score);
    for (size_t t = 0; t < p->tokens; t++) {
        size_t start = t / a->seq * a->seq;
        for (size_t h = 0; h < a->heads; h++) {
            double top = -INFINITY, sum = 0;
            for (size_t j = start; j <= t; j++) {
                double dot = 0;
                for (size_t i = 0; i < a->qk; i++) {
                    dot +=
                        p->q[(t * a->heads + h) * a->qk + i] * p->k[(j * a->heads + h) * a->qk + i];
                }
                score[j - start] = dot * (double)a->scale;
                top = fmax(top, score[j - start]);
            }
            for (size_t j = start; j <= t; j++) {
                sum += score[j - start] = exp(score[j - start] - top);
            }
            for (size_t i = 0; i < a->v; i++) {
                double y = 0;
                for (size_t j = start; j <= t; j++) {
                    y += score[j - start] / sum * p->v[(j * a->heads + h) * a->v + i];
                }
                out[(t * a->heads + h) * a->v + i] = y;
            }
        }
    }
    free(score);
}

static double objective(void *ctx)
{
    const struct problem *p = ctx;
    size_t n = p->tokens * p->a.heads * p->a.v;
    double *out = malloc(n * sizeof *out), total = 0;
    attend(p, out);
    for (size_t i = 0; i < n; i++) {
        total += out[i] * p->weight[i];
    }
    free(out);
    return total;
}

static struct problem random_problem(size_t batch, size_t seq)
{
    struct problem p = {.a = {.batch = batch,
                              .seq = seq,
                              .heads = 1 + random_below(3),
                              .qk = 1 + random_below(9),
                              .v = 1 + random_below(9),
                              .scale = (float)uniform(0.2, 2)}};
    p.tokens = batch * seq;
    return p;
}

/* Heads inside wider rows, as queries, keys and values lie in the model. */
struct buffer {
    float *data;
    struct op_heads heads;
    size_t count;
};

static struct buffer buffer_new(const struct problem *p, size_t dim)
{
    size_t head = dim + random_below(3), row = p->a.heads * head + random_below(3);
    float *data = random_floats(p->tokens * row, -2, 2);
    return (struct buffer){data, {data, row, head}, p->tokens * p->a.heads * dim};
}

static double *dense(const struct problem *p, struct op_heads x, size_t dim)
{
    double *y = malloc(p->tokens * p->a.heads * dim * sizeof *y);
    for (size_t i = 0; i < p->tokens * p->a.heads * dim; i++) {
        size_t t = i / dim / p->a.heads, h = i / dim % p->a.heads;
        y[i] = (double)x.data[t * x.row + h * x.head + i % dim];
    }
    return y;
}

static double heads_error(const struct problem *p, struct op_heads x, size_t dim,
                          const double *wanted)
{
    double *got = dense(p, x, dim), error = 0, norm = 0;
    for (size_t i = 0; i < p->tokens * p->a.heads * dim; i++) {
        error += pow(got[i] - wanted[i], 2);
        norm += wanted[i] * wanted[i];
    }
    free(got);
    return sqrt(error) / (sqrt(norm) + 0.3);
}

static void check(const struct op_table *op, struct problem *p, bool gradients)
{
    const struct op_attention *a = &p->a;
    struct buffer q = buffer_new(p, a->qk), k = buffer_new(p, a->qk), v = buffer_new(p, a->v);
    struct buffer out = buffer_new(p, a->v), dout = buffer_new(p, a->v);
    struct buffer dq = buffer_new(p, a->qk), dk = buffer_new(p, a->qk), dv = buffer_new(p, a->v);
    float *lse = random_floats(p->tokens * a->heads, 0, 1);
    float *scratch = random_floats(op->attention_scratch(a), -1, 1);
    double *wanted = malloc(out.count * sizeof *wanted);
    p->q = dense(p, q.heads, a->qk);
    p->k = dense(p, k.heads, a->qk);
    p->v = dense(p, v.heads, a->v);
    p->weight = dense(p, dout.heads, a->v);
    op->attention(a, q.heads, k.heads, v.heads, out.heads, lse, scratch);
    attend(p, wanted);
    assert_true(heads_error(p, out.heads, a->v, wanted) < 2e-6);
    if (gradients) {
        op->attention_backward(a, q.heads, k.heads, v.heads, out.heads, lse, dout.heads, dq.heads,
                               dk.heads, dv.heads, scratch);
        struct {
            double *x;
            struct op_heads got;
            size_t dim;
        } of[] = {{p->q, dq.heads, a->qk}, {p->k, dk.heads, a->qk}, {p->v, dv.heads, a->v}};
        for (size_t i = 0; i < 3; i++) {
            double *d = differences(objective, p, of[i].x, p->tokens * a->heads * of[i].dim);
            assert_true(heads_error(p, of[i].got, of[i].dim, d) < 5e-5);
            free(d);
        }
    }
    free(q.data), free(k.data), free(v.data), free(out.data), free(dout.data);
    free(dq.data), free(dk.data), free(dv.data), free(lse), free(scratch), free(wanted);
    free(p->q), free(p->k), free(p->v), free(p->weight);
}

/* Random head sizes (query and value dimensions differ), odd lengths, several sequences, strided
 * layouts. */
static void test_small(void **state)
{
    (void)state;
    for (int trial = 0; trial < 30; trial++) {
        struct problem p = random_problem(1 + random_below(3), 1 + random_below(12));
        check(op_cpu(trial % 2 == 0 ? 1 : 3), &p, true);
    }
    op_cpu(1);
}

/* Lengths around the block size, where blocks begin and end. */
static void test_blocks(void **state)
{
    (void)state;
    static const size_t lengths[] = {63, 64, 65, 127, 128, 129, 200};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct problem p = random_problem(1 + random_below(2), lengths[i]);
        check(op_cpu(1), &p, false);
    }
}

/* The gradients across blocks: those of one head of 70 tokens. */
static void test_block_gradients(void **state)
{
    (void)state;
    struct problem p = random_problem(1, 70);
    p.a.heads = 1;
    p.a.qk = 3;
    p.a.v = 2;
    check(op_cpu(1), &p, true);
}

/* Scores far apart neither overflow nor make a NaN. */
static void test_large_scores(void **state)
{
    (void)state;
    const struct op_table *op = op_cpu(1);
    struct op_attention a = {.batch = 1, .seq = 3, .heads = 1, .qk = 1, .v = 1, .scale = 1000};
    float q[] = {1, -30, 30}, k[] = {1, -20, 20}, v[] = {1, 2, 3}, out[3], lse[3], d[3], dq[3],
          dk[3], dv[3];
    float *scratch = random_floats(op->attention_scratch(&a), 0, 1);
    struct op_heads qh = {q, 1, 1}, kh = {k, 1, 1}, vh = {v, 1, 1}, oh = {out, 1, 1};
    d[0] = d[1] = d[2] = 1;
    op->attention(&a, qh, kh, vh, oh, lse, scratch);
    assert_true(out[0] == 1 && out[1] == 2 && out[2] == 3);
    op->attention_backward(&a, qh, kh, vh, oh, lse, (struct op_heads){d, 1, 1},
                           (struct op_heads){dq, 1, 1}, (struct op_heads){dk, 1, 1},
                           (struct op_heads){dv, 1, 1}, scratch);
    for (size_t i = 0; i < 3; i++) {
        assert_true(fabsf(dq[i]) < 1e-3f && fabsf(dk[i]) < 1e-3f && fabsf(dv[i] - 1) < 1e-3f);
    }
    free(scratch);
}

int main(void)
{
    random_start("test_op_attention");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_block_gradients),
        cmocka_unit_test(test_large_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
