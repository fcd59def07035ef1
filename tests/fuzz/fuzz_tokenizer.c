/* A tokenizer.json, a NUL, and a text. A file that is refused says why; one that is taken gives ids
 * below its vocabulary, and their text is UTF-8. */
#include <assert.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer/tokenizer.h"
#include "trainer/tokenizer_json.h"
#include "trainer/tokenizer_unicode.h"

#define TEXT_BYTES_MAX 200

static void use(const struct tokenizer *t, const uint8_t *text, size_t bytes)
{
    struct tokenizer_encoder *e = tokenizer_encoder_create(t);
    struct token_ids ids = {0};
    struct buf out = {0};
    struct err err = {0};
    bool ascii;
    int rc = tokenizer_encode(e, text, bytes, true, &ids, &err);
    assert(rc == 0 || (rc == ERR_DATA && err.text[0] != 0));
    for (size_t i = 0; i < ids.count; i++) {
        assert(ids.ids[i] < t->vocab);
    }
    token_ids_add(&ids, t->vocab); /* stands for nothing */
    for (int skip = 0; skip <= 1; skip++) {
        buf_reset(&out);
        tokenizer_decode(t, ids.ids, ids.count, skip, &out);
        assert(unicode_valid_bytes(out.data, out.len, &ascii) == out.len);
    }
    token_ids_fini(&ids);
    buf_fini(&out);
    tokenizer_encoder_destroy(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct tokenizer *t;
    struct err err = {0};
    const uint8_t *end = memchr(data, 0, len);
    size_t json_bytes = end != NULL ? (size_t)(end - data) : len;
    if (tokenizer_json_parse(&t, (const char *)data, json_bytes, "t.json", &err) != 0) {
        assert(err.code == ERR_DATA && err.text[0] != 0 && t == NULL);
        return 0;
    }
    size_t text_bytes = end != NULL ? len - json_bytes - 1 : 0;
    use(t, data + len - text_bytes, text_bytes < TEXT_BYTES_MAX ? text_bytes : TEXT_BYTES_MAX);
    tokenizer_close(t);
    return 0;
}
