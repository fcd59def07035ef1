/* Text to token ids and back. There are two tokenizers: a byte is a token (tokenizer_bytes.h), and
 * byte-pair encoding as a Hugging Face tokenizer.json describes it (tokenizer_json.h); the latter
 * gives the ids and the text that the Python package `tokenizers` gives.
 *
 * A tokenizer does not change once it is made and serves any number of threads; each thread encodes
 * with an encoder of its own. */
#ifndef TRAINER_TOKENIZER_H
#define TRAINER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

/* A zeroed one is empty and valid. */
struct token_ids {
    uint32_t *ids; /* owned */
    size_t count, capacity;
};

void token_ids_add(struct token_ids *t, uint32_t id);
void token_ids_fini(struct token_ids *t);

struct tokenizer;
struct tokenizer_encoder;

/* What a kind of tokenizer implements; the functions below say what each does. */
struct tokenizer_kind {
    void (*destroy)(struct tokenizer *t);
    struct tokenizer_encoder *(*encoder_create)(const struct tokenizer *t);
    void (*encoder_destroy)(struct tokenizer_encoder *e);
    int (*encode)(struct tokenizer_encoder *e, const void *text, size_t bytes, bool frame,
                  struct token_ids *out, struct err *err);
    void (*decode)(const struct tokenizer *t, const uint32_t *ids, size_t count, bool skip_special,
                   struct buf *text);
    void (*spell)(const struct tokenizer *t, uint32_t id, struct buf *out);
    bool (*find)(const struct tokenizer *t, const char *token, uint32_t *id);
};

/* The head of each kind's own struct. */
struct tokenizer {
    const struct tokenizer_kind *kind;
    uint32_t vocab; /* every id is below */
    int64_t eod;    /* the id that ends a document; -1: the tokenizer does not say */
    bool is_bytes;  /* a token is a byte */
};
struct tokenizer_encoder {
    const struct tokenizer *tokenizer;
};

/* name is `bytes`, or the path of a tokenizer.json or of the folder it lies in. ERR_NOT_FOUND;
 * ERR_DATA with the file, the key and the value of what is broken or not supported. */
int tokenizer_open(struct tokenizer **t, const char *name, struct err *err);
void tokenizer_close(struct tokenizer *t);

struct tokenizer_encoder *tokenizer_encoder_create(const struct tokenizer *t);
void tokenizer_encoder_destroy(struct tokenizer_encoder *e);

/* Appends the ids of a text to out. Text that is not UTF-8 is read as Python's errors='replace'
 * reads it: each maximal invalid part is a U+FFFD. frame: also the tokens that the file's
 * post-processor puts around a text, such as a begin-of-text. ERR_DATA when a pattern of the file
 * takes too much memory, or steps, on this text. */
int tokenizer_encode(struct tokenizer_encoder *e, const void *text, size_t bytes, bool frame,
                     struct token_ids *out, struct err *err);

/* Appends the text of ids to `text`; it is UTF-8, with U+FFFD for bytes that are none. An id that
 * stands for no token gives nothing. skip_special: neither does a special token. */
void tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t count,
                      bool skip_special, struct buf *text);

/* The id of a token by its text as the vocabulary spells it, such as <|endoftext|>. */
bool tokenizer_find(const struct tokenizer *t, const char *token, uint32_t *id);
/* The other way round: appends that text; nothing when the id stands for no token. */
void tokenizer_spell(const struct tokenizer *t, uint32_t id, struct buf *out);

#endif
