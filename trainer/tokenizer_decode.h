/* The decoder of a tokenizer.json: the texts of tokens into one text. Supported are ByteLevel,
 * Replace, ByteFallback, Fuse, Strip, and Sequence of them. */
#ifndef TRAINER_TOKENIZER_DECODE_H
#define TRAINER_TOKENIZER_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/tokenizer_at.h"

struct token_decoder; /* immutable, shared by threads */

/* at: the file's decoder; null is none, and then spaces join the tokens. ERR_DATA. */
int token_decoder_load(struct token_decoder **d, const struct json_at *at, struct err *err);
void token_decoder_destroy(struct token_decoder *d);

/* Texts one after the other. A zeroed one is empty and valid. */
struct texts {
    struct buf bytes;
    size_t *ends; /* owned; of each text in `bytes` */
    size_t count, capacity;
};
void texts_add(struct texts *t, const void *text, size_t bytes);
void texts_fini(struct texts *t);

/* Appends the text of tokens (valid UTF-8) to out; tokens are used up. */
void token_decoder_run(const struct token_decoder *d, struct texts *tokens, struct buf *out);

#endif
