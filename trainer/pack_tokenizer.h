/* The tokenizer of a corpus, kept beside it: PREFIX.tokenizer.json, a copy, and
 * PREFIX.tokenizer_config.json, in which eos_token ends a document and vocab_size is 1 + the
 * greatest id. Bytes leave neither. */
#ifndef TRAINER_PACK_TOKENIZER_H
#define TRAINER_PACK_TOKENIZER_H

#include <stdint.h>

#include "lib/err.h"
#include "trainer/tokenizer.h"

/* name: what tokenizer_open made t of. */
int pack_tokenizer_keep(const char *prefix, const char *name, const struct tokenizer *t,
                        uint32_t eod, struct err *err);
/* Whether a model of this vocabulary has all ids of the corpus, as far as that says what it has.
 * ERR_CONFIG. */
int pack_tokenizer_check(const char *prefix, uint32_t vocab_size, struct err *err);

#endif
