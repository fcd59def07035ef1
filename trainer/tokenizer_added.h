/* The added tokens of a tokenizer.json: texts such as <|endoftext|> that are tokens wherever they
 * stand, whatever the model would make of them. */
#ifndef TRAINER_TOKENIZER_ADDED_H
#define TRAINER_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/tokenizer_at.h"
#include "trainer/tokenizer_norm.h"
#include "trainer/tokenizer_vocab.h"

struct added; /* immutable, shared by threads */

/* at: the file's added_tokens. An id must be the one that the reference would give: the model's
 * when the model has the token, else the next free one. ERR_DATA. */
int added_load(struct added **a, const struct json_at *at, const struct vocab *model,
               const struct normaliser *normaliser, struct err *err);
void added_destroy(struct added *a);

uint32_t added_ids(const struct added *a); /* all ids are below */
bool added_find(const struct added *a, const char *text, uint32_t *id);
/* The text that an id decodes to, NULL when it is none of an added token. *skipped: decoding
 * without special tokens leaves it out. */
const char *added_text(const struct added *a, uint32_t id, size_t *bytes, bool *skipped);

/* As the file spells it; NULL as above. */
const uint8_t *added_spelling(const struct added *a, uint32_t id, size_t *bytes);

/* Tokens are looked for twice: some in the text as it is, the others, those marked `normalized`, in
 * its normal form. */
enum added_form { ADDED_PLAIN, ADDED_NORMALISED };

/* A walk over a text (valid UTF-8); start from a zeroed one with text and bytes set. */
struct added_walk {
    const uint8_t *text;
    size_t bytes;
    size_t done, searched; /* the walk's own */
    size_t before;         /* the text between the last token and this one starts here */
    size_t start, end;     /* and ends where the token starts; the token with the space it takes */
    uint32_t id;
};
/* False when there is no other token; then the rest of the text is before..bytes. */
bool added_next(const struct added *a, enum added_form form, struct regex_scratch *scratch,
                struct added_walk *w);

#endif
