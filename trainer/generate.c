#include "trainer/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/mem.h"
#include "trainer/model_open.h"
#include "trainer/model_text.h"
#include "trainer/speculate.h"

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
    g->unguessed = s.unguessed;
    free(s.logits);
    return made;
}

/* ---- the command */

struct output {
    struct text_stream stream;
    bool ids; /* instead of text */
    uint64_t count;
    int failed; /* errno */
};

static bool write_token(void *ctx, int32_t token)
{
    struct output *o = ctx;
    struct buf text = {0};
    if (o->ids) {
        buf_printf(&text, "%s%d", o->count > 0 ? " " : "", token);
    } else {
        text_stream_add(&o->stream, token, &text);
    }
    o->count++;
    bool written = fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    o->failed = written ? 0 : errno;
    buf_fini(&text);
    return written;
}

static void write_end(struct output *o)
{
    struct buf text = {0};
    if (o->ids) {
        buf_append_str(&text, "\n");
    } else {
        text_stream_flush(&o->stream, &text);
    }
    bool written = fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    o->failed = o->failed != 0 || written ? o->failed : errno;
    buf_fini(&text);
}

/* ---- prompts */

static int parse_ids(const char *text, uint32_t vocab, struct token_ids *out, struct err *err)
{
    const char *p = text + strspn(text, " ,");
    while (*p != 0) {
        char *end;
        unsigned long long id = strtoull(p, &end, 10);
        if (end == p || *p == '-' || *p == '+' || id >= vocab) {
            return err_set(err, ERR_USAGE, "--prompt-ids: '%.20s' is no token id below %u", p,
                           vocab);
        }
        token_ids_add(out, (uint32_t)id);
        p = end + strspn(end, " ,");
    }
    return 0;
}

/* An empty prompt is the beginning of a document: what follows the end of another. */
static int encode(const struct open_model *m, const struct model_text *t,
                  const struct generate_options *o, struct token_ids *out, struct err *err)
{
    if (o->prompt_ids != NULL) {
        TRY(parse_ids(o->prompt_ids, m->config.vocab_size, out, err));
    } else {
        TRY(model_text_check(t, o->ckpt, err));
        TRY(model_text_encode(t, o->prompt, strlen(o->prompt), true, out, err));
    }
    if (out->count == 0 && t->begin < 0) {
        return err_set(err, ERR_USAGE,
                       "the prompt is empty, and no token is known with which a text begins");
    }
    if (out->count == 0) {
        token_ids_add(out, (uint32_t)t->begin);
    }
    if (out->count >= m->config.max_position_embeddings) {
        return err_set(err, ERR_USAGE,
                       "the prompt has %zu tokens, this model's text %u at most "
                       "(max_position_embeddings)",
                       out->count, m->config.max_position_embeddings);
    }
    return 0;
}

/* ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_speed(const struct generation *g, uint64_t made, double took)
{
    fprintf(stderr, "dstrain: %" PRIu64 " tokens, %.1f tokens/s", made, (double)made / took);
    if (g->speculate) {
        fprintf(stderr, ", %" PRIu64 " of %" PRIu64 " drafts accepted (%.1f%%)", g->accepted,
                g->drafts, g->drafts > 0 ? 100.0 * (double)g->accepted / (double)g->drafts : 0.0);
        if (g->unguessed > 0) {
            fprintf(stderr, ", %" PRIu64 " tokens without: it did not pay", g->unguessed);
        }
    }
    fputc('\n', stderr);
}

static int run(const struct open_model *m, const struct model_text *t, const struct op_table *op,
               const struct generate_options *o, const struct token_ids *prompt, struct err *err)
{
    struct output output = {.stream = {.text = t}, .ids = o->prompt_ids != NULL};
    size_t most = m->config.max_position_embeddings;
    size_t positions = o->tokens < most - prompt->count ? prompt->count + (size_t)o->tokens : most;
    struct decoder *d = decoder_create(m->model, &m->config, op, positions);
    struct generation g = {.chooser = &o->chooser,
                           .vocab = m->config.vocab_size,
                           .positions = positions,
                           .tokens = o->tokens,
                           .end = t->end,
                           .speculate = o->speculate,
                           .emit = write_token,
                           .ctx = &output};
    double start = seconds();
    uint64_t made = generate_tokens(&g, d, (const int32_t *)prompt->ids, prompt->count);
    double took = seconds() - start;
    write_end(&output);
    decoder_destroy(d);
    text_stream_fini(&output.stream);
    if (output.failed != 0) {
        errno = output.failed;
        return err_set_errno(err, "cannot write the text");
    }
    print_speed(&g, made, took);
    return 0;
}

int generate(const struct generate_options *o, struct err *err)
{
    struct open_model m = {0};
    struct model_text text = {0};
    struct token_ids prompt = {0};
    const struct op_table *op = op_cpu(model_open_threads());
    int rc = 0;
    TRY_GOTO(model_open_facts(&m, o->ckpt, o->model, err), out);
    if (o->speculate && m.config.num_nextn_predict_layers == 0) {
        rc = err_set(err, ERR_CONFIG,
                     "--speculate: this model has no MTP module to guess with "
                     "(num_nextn_predict_layers is 0)");
        goto out;
    }
    TRY_GOTO(model_text_open(&text, &m, o->ckpt, o->tokenizer, err), out);
    TRY_GOTO(encode(&m, &text, o, &prompt, err), out);
    /* the model itself computes nothing here: the shortest sequence will do */
    m.ema = o->ema;
    TRY_GOTO(model_open_weights(&m, o->ckpt, op, PRECISION_FP32,
                                1 + m.config.num_nextn_predict_layers, err),
             out);
    rc = run(&m, &text, op, o, &prompt, err);
out:
    token_ids_fini(&prompt);
    model_text_close(&text);
    model_open_fini(&m);
    return rc;
}
