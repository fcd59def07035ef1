#include "trainer/model_text.h"

#include <string.h>

#include "trainer/hf_tokenizer.h"
#include "trainer/tokenizer_bytes.h"

#define HELD_MAX 64 /* tokens; what is no character by then never will be one */

static int check_ids(const struct model_text *t, const struct open_model *m, const char *dir,
                     struct err *err)
{
    return t->tokenizer->vocab <= m->config.vocab_size
               ? 0
               : err_set(err, ERR_CONFIG,
                         "%s: its tokenizer has %u ids, its model's vocabulary %u (--tokenizer "
                         "names another)",
                         dir, t->tokenizer->vocab, m->config.vocab_size);
}

/* Weights from elsewhere come with a config.json that knows; a model that began here ends its texts
 * with what they were packed with. */
static void choose_ends(struct model_text *t, const struct open_model *m)
{
    const struct model_config *c = &m->config;
    int64_t of_tokenizer = t->tokenizer != NULL ? t->tokenizer->eod : -1;
    bool config_first = m->facts.origin != NULL ? c->eos_token_id >= 0 : of_tokenizer < 0;
    t->end = config_first ? c->eos_token_id : of_tokenizer;
    t->begin = m->facts.origin != NULL && c->bos_token_id >= 0 ? c->bos_token_id : t->end;
}

int model_text_open(struct model_text *t, const struct open_model *m, const char *dir,
                    const char *choice, struct err *err)
{
    struct hf_tokenizer which;
    *t = (struct model_text){0};
    int rc = hf_tokenizer_of(&which, choice, dir, &m->facts, &m->config, err);
    t->is_bytes = which.kind == HF_TOKENIZER_BYTES;
    if (rc == 0 && which.kind != HF_TOKENIZER_NONE) {
        rc = hf_tokenizer_open(&which, &t->tokenizer, err);
        rc = rc == 0 ? check_ids(t, m, dir, err) : rc;
    }
    hf_tokenizer_fini(&which);
    if (rc != 0) {
        model_text_close(t);
        return rc;
    }
    if (t->tokenizer != NULL) {
        t->encoder = tokenizer_encoder_create(t->tokenizer);
    }
    choose_ends(t, m);
    return 0;
}

void model_text_close(struct model_text *t)
{
    tokenizer_encoder_destroy(t->encoder);
    tokenizer_close(t->tokenizer);
    *t = (struct model_text){0};
}

int model_text_check(const struct model_text *t, const char *dir, struct err *err)
{
    return t->tokenizer != NULL ? 0
                                : err_set(err, ERR_CONFIG,
                                          "%s: no tokenizer is known for its model (--tokenizer "
                                          "names a tokenizer.json, a folder with one, or bytes)",
                                          dir);
}

int model_text_encode(const struct model_text *t, const void *text, size_t bytes, bool frame,
                      struct token_ids *out, struct err *err)
{
    return tokenizer_encode(t->encoder, text, bytes, frame, out, err);
}

/* ---- back to text */

void text_stream_fini(struct text_stream *s)
{
    token_ids_fini(&s->ids);
}

static bool ends_open(const struct buf *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t n = sizeof replacement - 1;
    return text->len >= n && memcmp(text->data + text->len - n, replacement, n) == 0;
}

/* What the tokens from `shown` on add to those from `from` on: a decoder may treat the first token
 * of a text in its own way. */
static void show(struct text_stream *s, bool all, struct buf *out)
{
    const struct tokenizer *t = s->text->tokenizer;
    struct buf before = {0}, text = {0};
    tokenizer_decode(t, s->ids.ids + s->from, s->shown - s->from, true, &before);
    tokenizer_decode(t, s->ids.ids + s->from, s->ids.count - s->from, true, &text);
    if (text.len > before.len && (all || !ends_open(&text))) {
        buf_append(out, text.data + before.len, text.len - before.len);
        s->from = s->shown;
        s->shown = s->ids.count;
    }
    buf_fini(&before);
    buf_fini(&text);
}

void text_stream_add(struct text_stream *s, int32_t token, struct buf *out)
{
    if (s->text->is_bytes) {
        char byte = (char)token;
        buf_append(out, &byte, token < TOKENIZER_BYTES_EOD);
        return;
    }
    token_ids_add(&s->ids, (uint32_t)token);
    show(s, s->ids.count - s->shown > HELD_MAX, out);
}

void text_stream_flush(struct text_stream *s, struct buf *out)
{
    if (!s->text->is_bytes && s->ids.count > s->shown) {
        show(s, true, out);
    }
}
