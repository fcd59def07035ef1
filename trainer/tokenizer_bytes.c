#include "trainer/tokenizer_bytes.h"

#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/tokenizer_unicode.h"

static void destroy(struct tokenizer *t)
{
    free(t);
}

static struct tokenizer_encoder *encoder_create(const struct tokenizer *t)
{
    struct tokenizer_encoder *e = mem_alloc(sizeof *e);
    e->tokenizer = t;
    return e;
}

static void encoder_destroy(struct tokenizer_encoder *e)
{
    free(e);
}

static int encode(struct tokenizer_encoder *e, const void *text, size_t bytes, bool frame,
                  struct token_ids *out, struct err *err)
{
    (void)e;
    (void)frame; /* it puts nothing around a text */
    (void)err;
    const uint8_t *p = text;
    mem_grow((void **)&out->ids, &out->capacity, out->count + bytes, sizeof *out->ids);
    for (size_t i = 0; i < bytes; i++) {
        out->ids[out->count + i] = p[i];
    }
    out->count += bytes;
    return 0;
}

static void decode(const struct tokenizer *t, const uint32_t *ids, size_t count, bool skip_special,
                   struct buf *text)
{
    (void)t;
    (void)skip_special; /* the end of a document has no text */
    struct buf raw = {0};
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < TOKENIZER_BYTES_EOD) {
            uint8_t byte = (uint8_t)ids[i];
            buf_append(&raw, &byte, 1);
        }
    }
    unicode_append_replaced(raw.data, raw.len, text);
    buf_fini(&raw);
}

static void spell(const struct tokenizer *t, uint32_t id, struct buf *out)
{
    uint8_t byte = (uint8_t)id;
    (void)t;
    buf_append(out, &byte, id < TOKENIZER_BYTES_EOD);
}

static bool find(const struct tokenizer *t, const char *token, uint32_t *id)
{
    (void)t;
    *id = (uint8_t)token[0];
    return token[0] != 0 && token[1] == 0;
}

struct tokenizer *tokenizer_bytes_create(void)
{
    static const struct tokenizer_kind kind = {.destroy = destroy,
                                               .encoder_create = encoder_create,
                                               .encoder_destroy = encoder_destroy,
                                               .encode = encode,
                                               .decode = decode,
                                               .spell = spell,
                                               .find = find};
    struct tokenizer *t = mem_alloc(sizeof *t);
    *t = (struct tokenizer){.kind = &kind,
                            .vocab = TOKENIZER_BYTES_VOCAB,
                            .eod = TOKENIZER_BYTES_EOD,
                            .is_bytes = true};
    return t;
}
