/* Generation: greedy is the argmax of the full pass, speculation changes nothing but the number of
 * passes, sampling follows its distribution. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/model_fixture.h"
#include "trainer/generate.h"

#define SHAPES 40
#define PROMPT 70 /* more than two calls of the decoder */
#define TOKENS 40

struct text {
    int32_t token[TOKENS];
    size_t count;
};

static bool collect(void *ctx, int32_t token)
{
    struct text *t = ctx;
    t->token[t->count++] = token;
    return true;
}

static struct model *create(const struct model_config *c, const struct mesh *mesh,
                            const struct op_table *op)
{
    struct model *m = NULL;
    struct err err = {0};
    const struct model_options o = {.config = c,
                                    .op = op,
                                    .mesh = mesh,
                                    .precision = PRECISION_FP32,
                                    .micro_batch = 1,
                                    .sequence_length = PROMPT + TOKENS,
                                    .seed = 1};
    if (model_create(&m, &o, &err) != 0) {
        fail_msg("%s", err.text);
    }
    fixture_fill(m, random_next());
    return m;
}

static void run(struct generation g, struct model *m, const struct model_config *c,
                const struct op_table *op, const int32_t *prompt, size_t count, struct text *out,
                struct generation *after)
{
    struct decoder *d = decoder_create(m, c, op, g.positions);
    *out = (struct text){.count = 0};
    g.vocab = c->vocab_size;
    g.emit = collect;
    g.ctx = out;
    uint64_t made = generate_tokens(&g, d, prompt, count);
    assert_true(made == out->count || (made == out->count + 1 && g.end >= 0));
    decoder_destroy(d);
    if (after != NULL) {
        *after = g;
    }
}

/* Every token of the text is the argmax of a full pass over all that is before it. */
static void check_greedy(struct model *m, const struct model_config *c, const int32_t *prompt,
                         size_t count, const struct text *text)
{
    size_t vocab = c->vocab_size, length = PROMPT + TOKENS;
    int32_t *tokens = calloc(length + 1, sizeof *tokens);
    float *logits = calloc(length * vocab, sizeof *logits);
    struct err err = {0};
    memcpy(tokens, prompt, count * sizeof *tokens);
    memcpy(tokens + count, text->token, text->count * sizeof *tokens);
    assert_int_equal(model_logits(m, tokens, logits, &err), 0);
    for (size_t i = 0; i < text->count; i++) {
        const float *row = logits + (count - 1 + i) * vocab;
        float best = row[choose_likeliest(row, vocab)];
        /* A tie up to rounding may be decided either way. */
        assert_true(row[text->token[i]] >= best - 1e-4f * (1 + fabsf(best)));
    }
    free(tokens);
    free(logits);
}

static void test_greedy_and_speculation(void **state)
{
    (void)state;
    uint64_t drafts = 0, accepted = 0;
    for (int i = 0; i < SHAPES; i++) {
        struct model_config c = fixture_config();
        const struct mesh mesh = fixture_mesh();
        const struct op_table *op = op_cpu(1 + i % 3);
        struct chooser chooser = {.top_p = 1, .seed = random_next()};
        int32_t prompt[PROMPT];
        size_t count = pick(1, PROMPT);
        struct text plain, other;
        struct generation after;
        for (size_t t = 0; t < count; t++) {
            prompt[t] = (int32_t)pick(0, c.vocab_size - 1);
        }
        struct model *m = create(&c, &mesh, op);
        struct generation g = {.chooser = &chooser,
                               .positions = count + pick(0, TOKENS + 3),
                               .tokens = pick(0, TOKENS),
                               .end = pick(0, 1) ? -1 : (int32_t)pick(0, c.vocab_size - 1)};
        run(g, m, &c, op, prompt, count, &plain, NULL);
        check_greedy(m, &c, prompt, count, &plain);
        for (int sampled = 0; sampled <= 1 && c.num_nextn_predict_layers > 0; sampled++) {
            chooser.temperature = sampled ? 0.8 : 0;
            chooser.top_p = sampled ? 0.9 : 1;
            g.speculate = false;
            run(g, m, &c, op, prompt, count, &plain, NULL);
            g.speculate = true;
            run(g, m, &c, op, prompt, count, &other, &after);
            assert_int_equal(other.count, plain.count);
            assert_memory_equal(other.token, plain.token, plain.count * sizeof *plain.token);
            assert_true(after.accepted <= after.drafts);
            drafts += after.drafts;
            accepted += after.accepted;
        }
        model_destroy(m);
    }
    assert_true(accepted > 0 && accepted < drafts); /* both ways were gone */
}

/* A guess that is the module's own: logits of decoder_draft do not depend on earlier wrong ones. */
static void test_draft_after_rollback(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        struct model_config c = fixture_config();
        const struct mesh mesh = fixture_mesh();
        const struct op_table *op = op_cpu(1);
        c.num_nextn_predict_layers = 1;
        struct model *m = create(&c, &mesh, op);
        size_t vocab = c.vocab_size;
        const int32_t text[5] = {0, 1, 2, 3, 4};
        float *want = calloc(vocab, sizeof *want), *got = calloc(vocab, sizeof *got);
        struct decoder *d = decoder_create(m, &c, op, 8);
        decoder_forward(d, text, 4);
        decoder_draft(d, text + 1, 4, want);
        decoder_truncate(d, 0);
        decoder_forward(d, text, 2);
        decoder_draft(d, text + 1, 2, got);
        decoder_forward(d, (const int32_t[]){2, 0}, 2);
        decoder_truncate(d, 3);
        decoder_draft(d, text + 3, 1, got);
        decoder_forward(d, text + 3, 1);
        decoder_draft(d, text + 4, 1, got);
        assert_memory_equal(got, want, vocab * sizeof *got);
        decoder_destroy(d);
        model_destroy(m);
        free(want);
        free(got);
    }
}

/* The guesses' logits have the loss that training computes for the module. */
static void test_draft_loss(void **state)
{
    (void)state;
    enum { LENGTH = 45 };
    for (int i = 0; i < SHAPES; i++) {
        struct model_config c = fixture_config();
        struct mesh mesh = fixture_mesh();
        struct err err = {0};
        struct model *m = NULL;
        struct model_losses sums = {0};
        double loss = 0;
        c.num_nextn_predict_layers = 1;
        const struct model_options o = {.config = &c,
                                        .op = op_cpu(1),
                                        .mesh = &mesh,
                                        .precision = PRECISION_FP32,
                                        .micro_batch = 1,
                                        .sequence_length = LENGTH,
                                        .seed = 1};
        assert_int_equal(model_create(&m, &o, &err), 0);
        fixture_fill(m, random_next());
        int32_t *tokens = fixture_tokens(&o);
        float *logits = calloc(c.vocab_size, sizeof *logits);
        assert_int_equal(model_eval(m, tokens, false, &sums, &err), 0);
        struct decoder *d = decoder_create(m, &c, o.op, LENGTH);
        for (size_t t = 0; t + 1 < LENGTH; t++) {
            double sum = 0;
            decoder_forward(d, tokens + t, 1);
            decoder_draft(d, tokens + t + 1, 1, logits);
            for (uint32_t v = 0; v < c.vocab_size; v++) {
                sum += exp((double)logits[v]);
            }
            loss += log(sum) - (double)logits[tokens[t + 2]];
        }
        if (fabs(loss - sums.mtp_loss) > 1e-4 * sums.mtp_loss) {
            fail_msg("shape %d: %g, in training %g", i, loss, sums.mtp_loss);
        }
        decoder_destroy(d);
        model_destroy(m);
        free(tokens);
        free(logits);
    }
}

static void test_sampling(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    /* exp(2 ln p) normalised: 1/30, 4/30, 9/30, 16/30 */
    const float logits[4] = {logf(0.1f), logf(0.2f), logf(0.3f), logf(0.4f)};
    struct chooser c = {.temperature = 0.5, .top_p = 1, .seed = random_next()};
    double seen[4] = {0}, nucleus[4] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) {
        float copy[4];
        memcpy(copy, logits, sizeof copy);
        c.top_p = 1;
        int32_t token = choose_token(&c, copy, 4, i);
        seen[token]++;
        assert_int_equal(token, choose_token(&c, copy, 4, i));
        c.top_p = 0.8; /* 16/30 is less, 25/30 is more */
        nucleus[choose_token(&c, copy, 4, i)]++;
    }
    for (int i = 0; i < 4; i++) {
        double p = (i + 1) * (i + 1) / 30.0, in = i >= 2 ? p * 30 / 25 : 0;
        assert_true(fabs(seen[i] / DRAWS - p) < 6 * sqrt(p * (1 - p) / DRAWS));
        assert_true(fabs(nucleus[i] / DRAWS - in) <= 6 * sqrt(in * (1 - in) / DRAWS));
    }
    c = (struct chooser){.temperature = 1, .top_p = 1e-9};
    float tie[3] = {1, 2, 2};
    assert_int_equal(choose_token(&c, tie, 3, 5), 1);
    c.temperature = 0;
    assert_int_equal(choose_token(&c, tie, 3, 5), 1);
}

int main(void)
{
    random_start("test_generate");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_and_speculation), cmocka_unit_test(test_draft_after_rollback),
        cmocka_unit_test(test_draft_loss), cmocka_unit_test(test_sampling)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
