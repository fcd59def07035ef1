#include "trainer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/tokenizer_bytes.h"
#include "trainer/tokenizer_json.h"

void token_ids_add(struct token_ids *t, uint32_t id)
{
    if (t->count == t->capacity) {
        mem_grow((void **)&t->ids, &t->capacity, t->count + 1, sizeof *t->ids);
    }
    t->ids[t->count++] = id;
}

void token_ids_fini(struct token_ids *t)
{
    free(t->ids);
    *t = (struct token_ids){0};
}

int tokenizer_open(struct tokenizer **t, const char *name, struct err *err)
{
    if (strcmp(name, "bytes") == 0) {
        *t = tokenizer_bytes_create();
        return 0;
    }
    return tokenizer_json_open(t, name, err);
}

void tokenizer_close(struct tokenizer *t)
{
    if (t != NULL) {
        t->kind->destroy(t);
    }
}

struct tokenizer_encoder *tokenizer_encoder_create(const struct tokenizer *t)
{
    return t->kind->encoder_create(t);
}

void tokenizer_encoder_destroy(struct tokenizer_encoder *e)
{
    if (e != NULL) {
        e->tokenizer->kind->encoder_destroy(e);
    }
}

int tokenizer_encode(struct tokenizer_encoder *e, const void *text, size_t bytes, bool frame,
                     struct token_ids *out, struct err *err)
{
    if (bytes > INT32_MAX) {
        return err_set(err, ERR_DATA, "a text has %zu bytes, %d are allowed (cut it)", bytes,
                       INT32_MAX);
    }
    return e->tokenizer->kind->encode(e, text, bytes, frame, out, err);
}

void tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t count,
                      bool skip_special, struct buf *text)
{
    t->kind->decode(t, ids, count, skip_special, text);
}

void tokenizer_spell(const struct tokenizer *t, uint32_t id, struct buf *out)
{
    t->kind->spell(t, id, out);
}

bool tokenizer_find(const struct tokenizer *t, const char *token, uint32_t *id)
{
    return t->kind->find(t, token, id);
}
