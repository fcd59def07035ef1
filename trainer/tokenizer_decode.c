#include "trainer/tokenizer_decode.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/tokenizer_alphabet.h"
#include "trainer/tokenizer_regex.h"
#include "trainer/tokenizer_unicode.h"

#define STEPS_MAX 16

enum kind { BYTE_LEVEL, REPLACE, BYTE_FALLBACK, FUSE, STRIP };

struct step {
    enum kind kind;
    struct regex *regex; /* owned; REPLACE: what */
    char *text;          /* owned; REPLACE: by what; STRIP: the character */
    size_t bytes;
    uint32_t start, stop; /* STRIP: at most so many of it at each end */
};
struct token_decoder {
    struct step steps[STEPS_MAX];
    size_t count;
};

void texts_add(struct texts *t, const void *text, size_t bytes)
{
    buf_append(&t->bytes, text, bytes);
    mem_grow((void **)&t->ends, &t->capacity, t->count + 1, sizeof *t->ends);
    t->ends[t->count++] = t->bytes.len;
}

void texts_fini(struct texts *t)
{
    buf_fini(&t->bytes);
    free(t->ends);
    *t = (struct texts){0};
}

static const uint8_t *texts_get(const struct texts *t, size_t index, size_t *bytes)
{
    size_t start = index > 0 ? t->ends[index - 1] : 0;
    *bytes = t->ends[index] - start;
    return t->bytes.data + start;
}

/* ---- loading */

static int load_text(struct step *step, const struct json_at *at, struct err *err)
{
    struct json_at content = json_at_key(at, "content");
    const char *text;
    TRY(json_at_text(&content, &text, &step->bytes, err));
    step->text = mem_alloc(step->bytes + 1);
    memcpy(step->text, text, step->bytes);
    return 0;
}

static int load_strip(struct step *step, const struct json_at *at, struct err *err)
{
    struct json_at content = json_at_key(at, "content");
    struct json_at start = json_at_key(at, "start");
    struct json_at stop = json_at_key(at, "stop");
    size_t first = 0;
    TRY(json_at_only(at, "type content start stop", err));
    TRY(load_text(step, at, err));
    if (step->bytes > 0) {
        unicode_at((const uint8_t *)step->text, &first);
    }
    if (step->bytes == 0 || first != step->bytes) {
        return json_at_refuse(&content, err, "one character is needed");
    }
    TRY(json_at_u32(&start, INT32_MAX, &step->start, err));
    return json_at_u32(&stop, INT32_MAX, &step->stop, err);
}

static int load_step(struct step *step, const struct json_at *at, const char *type, struct err *err)
{
    if (strcmp(type, "ByteLevel") == 0) { /* what it may hold is for the other directions */
        step->kind = BYTE_LEVEL;
        return json_at_only(at, "type add_prefix_space trim_offsets use_regex", err);
    } else if (strcmp(type, "ByteFallback") == 0) {
        step->kind = BYTE_FALLBACK;
        return json_at_only(at, "type", err);
    } else if (strcmp(type, "Fuse") == 0) {
        step->kind = FUSE;
        return json_at_only(at, "type", err);
    } else if (strcmp(type, "Strip") == 0) {
        step->kind = STRIP;
        return load_strip(step, at, err);
    } else if (strcmp(type, "Replace") == 0) {
        struct json_at pattern = json_at_key(at, "pattern");
        step->kind = REPLACE;
        TRY(json_at_only(at, "type pattern content", err));
        TRY(load_text(step, at, err));
        return regex_load(&step->regex, &pattern, err);
    }
    struct json_at key = json_at_key(at, "type");
    return json_at_refuse(&key, err,
                          "not supported (decoders that are: ByteLevel, Replace, ByteFallback, "
                          "Fuse, Strip, Sequence)");
}

static int load_any(struct token_decoder *d, const struct json_at *at, struct err *err)
{
    const char *type;
    TRY(json_at_type(at, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        struct json_at list = json_at_key(at, "decoders");
        size_t count;
        TRY(json_at_only(at, "type decoders", err));
        TRY(json_at_array(&list, &count, err));
        for (size_t i = 0; i < count; i++) {
            struct json_at item = json_at_item(&list, i);
            TRY(load_any(d, &item, err));
        }
        return 0;
    }
    if (d->count == STEPS_MAX) {
        return json_at_refuse(at, err, "more than %d decoders", STEPS_MAX);
    }
    return load_step(&d->steps[d->count++], at, type, err);
}

int token_decoder_load(struct token_decoder **d, const struct json_at *at, struct err *err)
{
    *d = NULL;
    if (json_at_none(at)) {
        return 0;
    }
    *d = mem_alloc(sizeof **d);
    int rc = load_any(*d, at, err);
    if (rc != 0) {
        token_decoder_destroy(*d);
        *d = NULL;
    }
    return rc;
}

void token_decoder_destroy(struct token_decoder *d)
{
    if (d != NULL) {
        for (size_t i = 0; i < d->count; i++) {
            regex_destroy(d->steps[i].regex);
            free(d->steps[i].text);
        }
        free(d);
    }
}

/* ---- running */

/* A token with a character that is not of the alphabet, such as an added one, is its own text. */
static void run_byte_level(const struct texts *in, struct texts *out)
{
    struct buf raw = {0};
    struct buf text = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t bytes;
        const uint8_t *token = texts_get(in, i, &bytes);
        if (!alphabet_append_bytes(token, bytes, &raw)) {
            buf_append(&raw, token, bytes);
        }
    }
    unicode_append_replaced(raw.data, raw.len, &text);
    texts_add(out, text.data, text.len);
    buf_fini(&raw);
    buf_fini(&text);
}

static void run_replace(const struct step *step, const struct texts *in, struct texts *out)
{
    struct regex_scratch *scratch = regex_scratch_create();
    struct buf masked = {0};
    struct buf text = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t bytes;
        size_t done = 0;
        bool found;
        const uint8_t *token = texts_get(in, i, &bytes);
        struct regex_walk walk = {.text = unicode_mask(token, bytes, &masked) ? masked.data : token,
                                  .bytes = bytes};
        buf_reset(&text);
        while (regex_next(step->regex, scratch, &walk, &found, NULL) == 0 && found) {
            buf_append(&text, token + done, walk.start - done);
            buf_append(&text, step->text, step->bytes);
            done = walk.end;
        }
        buf_append(&text, token + done, bytes - done);
        texts_add(out, text.data, text.len);
    }
    buf_fini(&masked);
    buf_fini(&text);
    regex_scratch_destroy(scratch);
}

/* The byte of <0x41>; -1 when the token is no such. */
static int fallback_byte(const uint8_t *token, size_t bytes)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    if (bytes != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') {
        return -1;
    }
    const char *high = token[3] != 0 ? strchr(digits, token[3]) : NULL;
    const char *low = token[4] != 0 ? strchr(digits, token[4]) : NULL;
    return high == NULL || low == NULL ? -1
                                       : (int)((high - digits) % 16 * 16 + (low - digits) % 16);
}

/* A run of bytes is the text that it is in UTF-8, and when it is none, a U+FFFD for each byte. */
static void flush_bytes(struct buf *run, struct texts *out)
{
    bool ascii;
    if (run->len > 0 && unicode_valid_bytes(run->data, run->len, &ascii) == run->len) {
        texts_add(out, run->data, run->len);
    } else {
        for (size_t i = 0; i < run->len; i++) {
            texts_add(out, "\xef\xbf\xbd", 3);
        }
    }
    buf_reset(run);
}

static void run_byte_fallback(const struct texts *in, struct texts *out)
{
    struct buf run = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t bytes;
        const uint8_t *token = texts_get(in, i, &bytes);
        int byte = fallback_byte(token, bytes);
        if (byte >= 0) {
            uint8_t b = (uint8_t)byte;
            buf_append(&run, &b, 1);
        } else {
            flush_bytes(&run, out);
            texts_add(out, token, bytes);
        }
    }
    flush_bytes(&run, out);
    buf_fini(&run);
}

static void run_strip(const struct step *step, const struct texts *in, struct texts *out)
{
    for (size_t i = 0; i < in->count; i++) {
        size_t bytes;
        const uint8_t *token = texts_get(in, i, &bytes);
        for (uint32_t n = 0;
             n < step->start && bytes >= step->bytes && memcmp(token, step->text, step->bytes) == 0;
             n++) {
            token += step->bytes;
            bytes -= step->bytes;
        }
        for (uint32_t n = 0; n < step->stop && bytes >= step->bytes &&
                             memcmp(token + bytes - step->bytes, step->text, step->bytes) == 0;
             n++) {
            bytes -= step->bytes;
        }
        texts_add(out, token, bytes);
    }
}

static void run_step(const struct step *step, const struct texts *in, struct texts *out)
{
    switch (step->kind) {
    case BYTE_LEVEL:
        run_byte_level(in, out);
        break;
    case REPLACE:
        run_replace(step, in, out);
        break;
    case BYTE_FALLBACK:
        run_byte_fallback(in, out);
        break;
    case STRIP:
        run_strip(step, in, out);
        break;
    case FUSE:
        texts_add(out, in->bytes.data, in->bytes.len);
        break;
    }
}

void token_decoder_run(const struct token_decoder *d, struct texts *tokens, struct buf *out)
{
    if (d == NULL) {
        for (size_t i = 0; i < tokens->count; i++) {
            size_t bytes;
            const uint8_t *token = texts_get(tokens, i, &bytes);
            buf_append(out, " ", i > 0);
            buf_append(out, token, bytes);
        }
        return;
    }
    for (size_t i = 0; i < d->count; i++) {
        struct texts next = {0};
        run_step(&d->steps[i], tokens, &next);
        texts_fini(tokens);
        *tokens = next;
    }
    buf_append(out, tokens->bytes.data, tokens->bytes.len);
}
