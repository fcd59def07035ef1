/* Text for a model and back: the tokenizer of a checkpoint, and the tokens that begin and end its
 * texts. */
#ifndef TRAINER_MODEL_TEXT_H
#define TRAINER_MODEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/model_open.h"
#include "trainer/tokenizer.h"

struct model_text {
    struct tokenizer *tokenizer; /* owned; NULL: none is known */
    struct tokenizer_encoder *encoder;
    bool is_bytes; /* the byte-level one */
    int64_t begin; /* what an empty text begins with, or -1 */
    int64_t end;   /* what ends a text, or -1 */
};

/* choice: as of `dstrain export --tokenizer`; NULL: the checkpoint's own (hf_tokenizer.h). Without
 * a tokenizer begin and end are those of config.json. ERR_CONFIG when it has ids that the model has
 * not. */
int model_text_open(struct model_text *t, const struct open_model *m, const char *dir,
                    const char *choice, struct err *err);
void model_text_close(struct model_text *t); /* a zeroed one is fine */
/* ERR_CONFIG when there is no tokenizer. */
int model_text_check(const struct model_text *t, const char *dir, struct err *err);

/* frame: with what the tokenizer puts around a text. */
int model_text_encode(const struct model_text *t, const void *text, size_t bytes, bool frame,
                      struct token_ids *out, struct err *err);

/* Text as it comes: bytes are held back until they are a character. */
struct text_stream {
    const struct model_text *text; /* borrowed */
    struct token_ids ids;
    size_t from, shown; /* of ids: where decoding begins, and up to where all is written */
};
void text_stream_fini(struct text_stream *s);
/* Appends to out what a token adds. */
void text_stream_add(struct text_stream *s, int32_t token, struct buf *out);
/* What is held back at the end. */
void text_stream_flush(struct text_stream *s, struct buf *out);

#endif
