/* The corpus is cut into the windows that training and validation see (sampler.h): fixed, without
 * overlap but for one token, so that each token but the first is a target once. What is left at the
 * end and does not fill a window is not scored.
 *
 * Bits per byte: all nats of the targets, in bits, over the bytes of text that they are. An end of
 * document has a loss like any token but no bytes. */
#include "trainer/eval.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "trainer/data.h"
#include "trainer/model_open.h"
#include "trainer/model_text.h"
#include "trainer/sampler.h"
#include "trainer/tokenizer_bytes.h"

#define SEQUENCE_DEFAULT 1024 /* of a checkpoint of weights alone, which has no training */

struct eval {
    struct open_model m;
    struct dataset data;
    uint32_t length;
    uint64_t windows, used;
    struct model_losses sums;
    struct model_text text;
    uint64_t bytes; /* of text, among the targets */
};

static enum precision precision_of(const struct ckpt_facts *f)
{
    return strcmp(f->precision, "fp8") == 0    ? PRECISION_FP8
           : strcmp(f->precision, "bf16") == 0 ? PRECISION_BF16
                                               : PRECISION_FP32;
}

static int open_all(struct eval *e, const struct eval_options *o, struct err *err)
{
    TRY(model_open_facts(&e->m, o->ckpt, o->model, err));
    uint32_t most = e->m.config.max_position_embeddings;
    uint32_t trained = e->m.facts.sequence_length;
    e->length = o->sequence_length > 0    ? o->sequence_length
                : trained > 0             ? trained
                : most < SEQUENCE_DEFAULT ? most
                                          : SEQUENCE_DEFAULT;
    if (e->length > most) {
        return err_set(err, ERR_USAGE,
                       "--sequence-length %u is more than the model's max_position_embeddings %u",
                       e->length, most);
    }
    TRY(dataset_open(&e->data, o->data, err));
    e->windows = sampler_windows(e->data.tokens, e->length);
    if (e->windows == 0) {
        return err_set(err, ERR_DATA,
                       "%s.bin has %" PRIu64 " tokens, one window needs %u (more text, or a "
                       "smaller --sequence-length)",
                       o->data, e->data.tokens, e->length + 1);
    }
    e->used = o->batches > 0 && o->batches < e->windows ? o->batches : e->windows;
    TRY(model_text_open(&e->text, &e->m, o->ckpt, o->tokenizer, err));
    e->m.ema = o->ema;
    return model_open_weights(&e->m, o->ckpt, op_cpu(model_open_threads()),
                              precision_of(&e->m.facts), e->length, err);
}

/* A window may begin and end within a character: what it has of it decodes to U+FFFD each byte, or
 * all that is there at the end. */
static uint64_t text_bytes(const struct eval *e, const int32_t *targets)
{
    static const char replacement[] = "\xef\xbf\xbd";
    struct buf text = {0};
    uint64_t bytes = 0;
    size_t at = 0;
    if (e->text.is_bytes) {
        for (uint32_t t = 0; t < e->length; t++) {
            bytes += targets[t] < TOKENIZER_BYTES_EOD;
        }
        return bytes;
    }
    tokenizer_decode(e->text.tokenizer, (const uint32_t *)targets, e->length, true, &text);
    for (; at + 3 <= text.len && memcmp(text.data + at, replacement, 3) == 0; at += 3) {
        bytes++;
    }
    bytes += text.len - at;
    bytes -= text.len > at + 3 && memcmp(text.data + text.len - 3, replacement, 3) == 0 ? 2 : 0;
    buf_fini(&text);
    return bytes;
}

static int score(struct eval *e, int32_t *tokens, struct err *err)
{
    for (uint64_t i = 0; i < e->used; i++) {
        uint64_t window = sampler_valid_window(e->windows, i, e->used);
        TRY(dataset_read(&e->data, window * e->length, (size_t)e->length + 1,
                         e->m.config.vocab_size, tokens, err));
        TRY(model_eval(e->m.model, tokens, false, &e->sums, err));
        e->bytes += e->text.tokenizer != NULL ? text_bytes(e, tokens + 1) : 0;
    }
    if (!isfinite(e->sums.loss)) {
        return err_set(err, ERR_NUMERIC, "the loss is not finite: %g", e->sums.loss);
    }
    return 0;
}

static void print(const struct eval *e, bool as_json)
{
    double loss = e->sums.loss / (double)e->sums.tokens;
    double bits = e->bytes > 0 ? e->sums.loss / log(2) / (double)e->bytes : NAN;
    bool has_bits = e->bytes > 0;
    double ppl = exp(fmin(loss, 700));
    if (!as_json) {
        printf("loss=%.6f perplexity=%.4f ", loss, ppl);
        if (has_bits) {
            printf("bits_per_byte=%.6f bytes=%" PRIu64 " ", bits, e->bytes);
        }
        printf("tokens=%" PRIu64 " windows=%" PRIu64
               " sequence_length=%u precision=%s step=%" PRIu64 "\n",
               e->sums.tokens, e->used, e->length, e->m.facts.precision, e->m.facts.step);
        return;
    }
    json_t *root = json_pack("{s:f,s:f,s:o,s:o,s:I,s:I,s:I,s:s,s:I}", "loss", loss, "perplexity",
                             ppl, "bits_per_byte", has_bits ? json_real(bits) : json_null(),
                             "bytes", has_bits ? json_integer((json_int_t)e->bytes) : json_null(),
                             "tokens", (json_int_t)e->sums.tokens, "windows", (json_int_t)e->used,
                             "sequence_length", (json_int_t)e->length, "precision",
                             e->m.facts.precision, "step", (json_int_t)e->m.facts.step);
    json_dumpf(root, stdout, JSON_COMPACT);
    json_decref(root);
    putchar('\n');
}

int eval_corpus(const struct eval_options *o, struct err *err)
{
    struct eval e = {.data.bin_fd = -1};
    int32_t *tokens = NULL;
    int rc = open_all(&e, o, err);
    if (rc == 0) {
        tokens = mem_alloc_array((size_t)e.length + 1, sizeof *tokens);
        rc = score(&e, tokens, err);
    }
    if (rc == 0) {
        print(&e, o->json);
    }
    free(tokens);
    dataset_close(&e.data);
    model_text_close(&e.text);
    model_open_fini(&e.m);
    return rc;
}
