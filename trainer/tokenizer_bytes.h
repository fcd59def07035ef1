/* The byte-level tokenizer: a byte is its own token, and one more id ends a document. A model for
 * it needs vocab_size >= TOKENIZER_BYTES_VOCAB; larger is fine (rows that are never used). */
#ifndef TRAINER_TOKENIZER_BYTES_H
#define TRAINER_TOKENIZER_BYTES_H

#include <stddef.h>
#include <stdint.h>

#define TOKENIZER_BYTES_EOD   256 /* end of document */
#define TOKENIZER_BYTES_VOCAB 257

/* Writes bytes tokens to out; an end-of-document token is the caller's to add. */
void tokenizer_bytes_encode(const uint8_t *text, size_t bytes, uint16_t *out);

#endif
