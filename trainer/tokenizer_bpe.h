/* Byte-pair encoding: a piece of text starts as its characters (as its bytes under ByteLevel), and
 * of all neighbours that may merge those of the lowest rank do, the leftmost first, until none may.
 */
#ifndef TRAINER_TOKENIZER_BPE_H
#define TRAINER_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/tokenizer.h"
#include "trainer/tokenizer_at.h"
#include "trainer/tokenizer_vocab.h"

struct bpe;         /* immutable, shared by threads */
struct bpe_scratch; /* one thread's: a cache of pieces, and room to work */

/* at: the file's model. byte_level: pieces are bytes, and tokens are spelled in ByteLevel's
 * alphabet. ERR_DATA for what is not supported or broken: duplicates, ids and sizes out of bounds,
 * a merge of unknown tokens, and a vocabulary in which some text has no tokens. */
int bpe_load(struct bpe **b, const struct json_at *at, bool byte_level, struct err *err);
void bpe_destroy(struct bpe *b);
/* The tokens as the file spells them. */
const struct vocab *bpe_vocab(const struct bpe *b);

struct bpe_scratch *bpe_scratch_create(void);
void bpe_scratch_destroy(struct bpe_scratch *s);

/* Appends the ids of a piece; bytes > 0. */
void bpe_encode(const struct bpe *b, struct bpe_scratch *s, const uint8_t *piece, size_t bytes,
                struct token_ids *out);

#endif
