#include "trainer/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/mem.h"
#include "trainer/model_open.h"
#include "trainer/speculate.h"
#include "trainer/tokenizer_bytes.h"

/* The whole prompt into the cache; the first new token. */
static int32_t prefill(const struct generation *g, struct speculation *s, const int32_t *prompt,
                       size_t count)
{
    int32_t next[DECODE_ROWS];
    for (size_t at = 0;; at += DECODE_ROWS) {
        size_t n = count - at < DECODE_ROWS ? count - at : DECODE_ROWS;
        bool last = at + n == count;
        decoder_forward(s->decoder, prompt + at, n);
        memcpy(next, prompt + at + 1, (last ? n - 1 : n) * sizeof *next);
        if (last) {
            decoder_logits(s->decoder, n - 1, 1, s->logits);
            next[n - 1] = choose_token(g->chooser, s->logits, g->vocab, 0);
        }
        if (g->speculate) {
            speculate_draft(s, next, n);
        }
        if (last) {
            return next[n - 1];
        }
    }
}

/* New tokens after `last`: 1 or 2. */
static size_t advance(const struct generation *g, struct speculation *s, int32_t last,
                      uint64_t index, int32_t out[2])
{
    bool room = decoder_length(s->decoder) + 2 <= g->positions && index + 2 <= g->tokens;
    if (g->speculate && room) {
        return speculate_step(s, last, index, out);
    }
    decoder_forward(s->decoder, &last, 1);
    decoder_logits(s->decoder, 0, 1, s->logits);
    out[0] = choose_token(g->chooser, s->logits, g->vocab, index);
    return 1;
}

uint64_t generate_tokens(struct generation *g, struct decoder *d, const int32_t *prompt,
                         size_t count)
{
    int32_t out[2];
    size_t have = 1;
    uint64_t made = 0;
    bool done = g->tokens == 0;
    struct speculation s = {.decoder = d, .chooser = g->chooser, .vocab = g->vocab};
    s.logits = mem_alloc_array(2 * g->vocab, sizeof *s.logits);
    out[0] = prefill(g, &s, prompt, count);
    while (!done) {
        int32_t last = 0;
        for (size_t i = 0; i < have && !done; i++) {
            last = out[i];
            made++;
            done = last == g->end || !g->emit(g->ctx, last) || made == g->tokens;
        }
        done = done || decoder_length(d) == g->positions;
        have = done ? 0 : advance(g, &s, last, made, out);
    }
    g->drafts = s.drafts;
    g->accepted = s.accepted;
    free(s.logits);
    return made;
}

/* ---- the command */

static bool write_byte(void *ctx, int32_t token)
{
    int *failed = ctx;
    if (token <
        TOKENIZER_BYTES_EOD) { /* others are rows of the vocabulary that stand for nothing */
        putchar(token);
    }
    *failed = fflush(stdout) != 0 ? errno : 0;
    return *failed == 0;
}

static int check(const struct open_model *m, const struct generate_options *o, struct err *err)
{
    const struct model_config *c = &m->config;
    TRY(model_open_check_bytes(m, o->ckpt, err));
    if (o->speculate && c->num_nextn_predict_layers == 0) {
        return err_set(err, ERR_CONFIG,
                       "--speculate: this model has no MTP module to guess with "
                       "(num_nextn_predict_layers is 0)");
    }
    if (strlen(o->prompt) >= c->max_position_embeddings) {
        return err_set(err, ERR_USAGE,
                       "the prompt has %zu tokens, this model's text %u at most "
                       "(max_position_embeddings)",
                       strlen(o->prompt), c->max_position_embeddings);
    }
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* An empty prompt is the beginning of a document: what follows the end of another. */
static size_t encode(const char *text, int32_t *tokens)
{
    size_t count = strlen(text);
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (uint8_t)text[i];
    }
    if (count == 0) {
        tokens[count++] = TOKENIZER_BYTES_EOD;
    }
    return count;
}

static int run(const struct open_model *m, const struct op_table *op,
               const struct generate_options *o, struct err *err)
{
    int failed = 0;
    size_t most = m->config.max_position_embeddings;
    int32_t *prompt = mem_alloc_array(strlen(o->prompt) + 1, sizeof *prompt);
    size_t count = encode(o->prompt, prompt);
    size_t positions = o->tokens < most - count ? count + (size_t)o->tokens : most;
    struct decoder *d = decoder_create(m->model, &m->config, op, positions);
    struct generation g = {.chooser = &o->chooser,
                           .vocab = m->config.vocab_size,
                           .positions = positions,
                           .tokens = o->tokens,
                           .end = TOKENIZER_BYTES_EOD,
                           .speculate = o->speculate,
                           .emit = write_byte,
                           .ctx = &failed};
    double start = seconds();
    uint64_t made = generate_tokens(&g, d, prompt, count);
    double took = seconds() - start;
    decoder_destroy(d);
    free(prompt);
    if (failed != 0) {
        errno = failed;
        return err_set_errno(err, "cannot write the text");
    }
    fprintf(stderr, "dstrain: %" PRIu64 " tokens, %.1f tokens/s", made, (double)made / took);
    if (o->speculate) {
        fprintf(stderr, ", %" PRIu64 " of %" PRIu64 " drafts accepted (%.1f%%)", g.accepted,
                g.drafts, g.drafts > 0 ? 100.0 * (double)g.accepted / (double)g.drafts : 0.0);
    }
    fputc('\n', stderr);
    return 0;
}

int generate(const struct generate_options *o, struct err *err)
{
    struct open_model m = {0};
    const struct op_table *op = op_cpu(model_open_threads());
    int rc = model_open_facts(&m, o->ckpt, o->model, err);
    if (rc == 0) {
        rc = check(&m, o, err);
    }
    if (rc == 0) { /* the model itself computes nothing here: the shortest sequence will do */
        rc = model_open_weights(&m, o->ckpt, op, PRECISION_FP32,
                                1 + m.config.num_nextn_predict_layers, err);
    }
    if (rc == 0) {
        rc = run(&m, op, o, err);
    }
    model_open_fini(&m);
    return rc;
}
