/* Decoding with the compressed cache against the full forward pass: logits, greedy tokens, and bits
 * that do not depend on how the tokens are cut into calls. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/model_fixture.h"
#include "trainer/decode.h"

#define SHAPES    40
#define LENGTH    45 /* more than one call takes */
#define TOLERANCE 1e-4

struct fixture {
    struct model_config config;
    struct mesh mesh;
    struct model_options options;
    struct model *model;
    const struct op_table *op;
    int32_t *tokens;
};

static void setup(struct fixture *f, int threads)
{
    struct err err = {0};
    *f = (struct fixture){.config = fixture_config(), .mesh = fixture_mesh()};
    f->op = op_cpu(threads);
    f->options = (struct model_options){.config = &f->config,
                                        .op = f->op,
                                        .mesh = &f->mesh,
                                        .precision = PRECISION_FP32,
                                        .micro_batch = 1,
                                        .sequence_length = LENGTH,
                                        .seed = 1};
    if (model_create(&f->model, &f->options, &err) != 0) {
        fail_msg("%s", err.text);
    }
    fixture_fill(f->model, random_next());
    f->tokens = fixture_tokens(&f->options);
}

static void teardown(struct fixture *f)
{
    model_destroy(f->model);
    free(f->tokens);
}

static size_t argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

/* Logits of all tokens but the last, cut into calls of `step` tokens (0: of random sizes). */
static void decode_all(struct fixture *f, size_t step, float *out)
{
    size_t vocab = f->config.vocab_size;
    struct decoder *d = decoder_create(f->model, &f->config, f->op, LENGTH);
    for (size_t at = 0; at < LENGTH;) {
        size_t count = step > 0 ? step : pick(1, DECODE_ROWS);
        count = count < LENGTH - at ? count : LENGTH - at;
        decoder_forward(d, f->tokens + at, count);
        decoder_logits(d, 0, count, out + at * vocab);
        at += count;
    }
    assert_int_equal(decoder_length(d), LENGTH);
    decoder_destroy(d);
}

static void test_logits(void **state)
{
    (void)state;
    size_t decided = 0;
    for (int i = 0; i < SHAPES; i++) {
        struct fixture f;
        struct err err = {0};
        setup(&f, 1 + i % 3);
        size_t vocab = f.config.vocab_size, count = LENGTH * vocab;
        float *full = calloc(count, sizeof *full), *cached = calloc(count, sizeof *cached);
        assert_int_equal(model_logits(f.model, f.tokens, full, &err), 0);
        decode_all(&f, 0, cached);
        for (size_t t = 0; t < LENGTH; t++) {
            const float *a = full + t * vocab, *b = cached + t * vocab;
            size_t best = argmax(a, vocab);
            double range = 1e-3, gap = INFINITY;
            for (size_t v = 0; v < vocab; v++) {
                range = fmax(range, fabs((double)a[v]));
                gap = v == best ? gap : fmin(gap, (double)a[best] - (double)a[v]);
            }
            for (size_t v = 0; v < vocab; v++) {
                if (fabs((double)a[v] - (double)b[v]) > TOLERANCE * range) {
                    fail_msg("shape %d, position %zu, logit %zu: %g, full %g", i, t, v,
                             (double)b[v], (double)a[v]);
                }
            }
            if (gap > 2 * TOLERANCE * range) {
                assert_int_equal(argmax(b, vocab), best);
                decided++;
            }
        }
        free(full);
        free(cached);
        teardown(&f);
    }
    assert_true(decided > SHAPES * LENGTH * 9 / 10);
}

static void test_rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct fixture f;
        setup(&f, 1 + i % 3);
        size_t bytes = LENGTH * f.config.vocab_size * sizeof(float);
        float *one = calloc(1, bytes), *some = calloc(1, bytes);
        decode_all(&f, 1, one);
        decode_all(&f, 0, some);
        assert_memory_equal(one, some, bytes);
        decode_all(&f, 2, some);
        assert_memory_equal(one, some, bytes);
        free(one);
        free(some);
        teardown(&f);
    }
}

/* Tokens taken back leave no trace. */
static void test_truncate(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct fixture f;
        setup(&f, 1);
        size_t vocab = f.config.vocab_size, kept = pick(1, 20);
        float *want = calloc(LENGTH * vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
        decode_all(&f, 1, want);
        struct decoder *d = decoder_create(f.model, &f.config, f.op, LENGTH);
        decoder_forward(d, f.tokens, kept);
        decoder_forward(d, f.tokens + 21, pick(1, 20));
        decoder_truncate(d, kept);
        decoder_forward(d, f.tokens + kept, 1);
        decoder_logits(d, 0, 1, got);
        assert_memory_equal(got, want + kept * vocab, vocab * sizeof *got);
        decoder_destroy(d);
        free(want);
        free(got);
        teardown(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logits),
                                       cmocka_unit_test(test_rows_do_not_depend_on_the_batch),
                                       cmocka_unit_test(test_truncate)};
    random_start("test_decode");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
