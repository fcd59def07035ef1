/* The byte-level tokenizer: a byte is its own token, and one more id ends a document. A model for
 * it needs vocab_size >= TOKENIZER_BYTES_VOCAB; larger is fine (rows that are never used). */
#ifndef TRAINER_TOKENIZER_BYTES_H
#define TRAINER_TOKENIZER_BYTES_H

#include "trainer/tokenizer.h"

#define TOKENIZER_BYTES_EOD   256 /* end of document; the one special token */
#define TOKENIZER_BYTES_VOCAB 257

/* Its text needs not be UTF-8: bytes are taken as they are. Decoding gives them back, with U+FFFD
 * where they are no UTF-8. */
struct tokenizer *tokenizer_bytes_create(void);

#endif
