/* tokenize [TOKENIZER]: answers requests from stdin, for comparison with the reference.
 *
 * A request is a letter, a u32 and so many bytes or ids:
 *   e, E   a text: its ids; E with the frame
 *   d, D   ids: their text; D without special tokens
 *   P      the pre_tokenizer of a tokenizer.json, for p: nothing
 *   p      a text: start and end of each of its pieces
 * The answer is a u32 and so many ids or bytes; 2^32 - 1 is an error, its text goes to stderr. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/tokenizer.h"
#include "trainer/tokenizer_split.h"

#define FAILED UINT32_MAX

struct server {
    struct tokenizer *tokenizer;
    struct tokenizer_encoder *encoder;
    struct splitter *splitter;
    struct splitter_scratch *scratch;
    /* of one answer */
    const uint8_t *split; /* the text of p */
    struct token_ids ids;
    struct buf text;
    struct err err;
};

static int load_splitter(struct server *s, const char *json, size_t bytes)
{
    json_error_t why;
    splitter_destroy(s->splitter);
    s->splitter = NULL;
    json_t *value = json_loadb(json, bytes, JSON_ALLOW_NUL, &why);
    if (value == NULL) {
        return err_set(&s->err, ERR_DATA, "%s", why.text);
    }
    struct json_at at = json_at_file("pre_tokenizer", value);
    int rc = splitter_load(&s->splitter, &at, &s->err);
    json_decref(value);
    return rc;
}

static int add_piece(void *ctx, const uint8_t *piece, size_t bytes, struct err *err)
{
    struct server *s = ctx;
    (void)err;
    token_ids_add(&s->ids, (uint32_t)(piece - s->split));
    token_ids_add(&s->ids, (uint32_t)(piece - s->split + (ptrdiff_t)bytes));
    return 0;
}

static int serve(struct server *s, char kind, const void *data, uint32_t count)
{
    s->ids.count = 0;
    buf_reset(&s->text);
    s->err = (struct err){0};
    switch (kind) {
    case 'e':
    case 'E':
        return tokenizer_encode(s->encoder, data, count, kind == 'E', &s->ids, &s->err);
    case 'd':
    case 'D':
        tokenizer_decode(s->tokenizer, data, count, kind == 'D', &s->text);
        return 0;
    case 'P':
        return load_splitter(s, data, count);
    default:
        s->split = data;
        return splitter_run(s->splitter, s->scratch, data, count, add_piece, s, &s->err);
    }
}

static void answer(struct server *s, int rc)
{
    uint32_t n = rc != 0 ? FAILED : (uint32_t)(s->ids.count > 0 ? s->ids.count : s->text.len);
    fwrite(&n, sizeof n, 1, stdout);
    if (rc != 0) {
        fprintf(stderr, "%s\n", s->err.text);
    } else if (s->ids.count > 0) {
        fwrite(s->ids.ids, sizeof *s->ids.ids, s->ids.count, stdout);
    } else {
        fwrite(buf_cstr(&s->text), 1, s->text.len, stdout);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct server s = {.scratch = splitter_scratch_create()};
    char kind;
    uint32_t count;
    if (argc == 2) {
        if (tokenizer_open(&s.tokenizer, argv[1], &s.err) != 0) {
            fprintf(stderr, "%s\n", s.err.text);
            return 1;
        }
        s.encoder = tokenizer_encoder_create(s.tokenizer);
    }
    while (fread(&kind, 1, 1, stdin) == 1 && fread(&count, sizeof count, 1, stdin) == 1) {
        size_t item_bytes = kind == 'd' || kind == 'D' ? sizeof(uint32_t) : 1;
        void *data = mem_alloc_array(count, item_bytes);
        if (fread(data, item_bytes, count, stdin) != count) {
            break;
        }
        answer(&s, serve(&s, kind, data, count));
        free(data);
    }
    splitter_destroy(s.splitter);
    splitter_scratch_destroy(s.scratch);
    tokenizer_encoder_destroy(s.encoder);
    tokenizer_close(s.tokenizer);
    token_ids_fini(&s.ids);
    buf_fini(&s.text);
    return 0;
}
