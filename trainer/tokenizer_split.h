/* The pre-tokeniser of a tokenizer.json: cuts text into the pieces within which tokens merge.
 * Supported are Split (by text or regular expression), Digits, ByteLevel, and Sequence of them with
 * ByteLevel last. */
#ifndef TRAINER_TOKENIZER_SPLIT_H
#define TRAINER_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/tokenizer_at.h"

struct splitter;         /* immutable, shared by threads */
struct splitter_scratch; /* one thread's */

/* at: the file's pre_tokenizer; null is none, and then a text is one piece. ERR_DATA. */
int splitter_load(struct splitter **s, const struct json_at *at, struct err *err);
void splitter_destroy(struct splitter *s);
/* The bytes of the pieces are to be read as ByteLevel's alphabet of 256 characters. */
bool splitter_is_byte_level(const struct splitter *s);

struct splitter_scratch *splitter_scratch_create(void);
void splitter_scratch_destroy(struct splitter_scratch *scratch);

/* Calls fn with each piece of the text (valid UTF-8), in order, until one fails. */
typedef int splitter_fn(void *ctx, const uint8_t *piece, size_t bytes, struct err *err);
int splitter_run(const struct splitter *s, struct splitter_scratch *scratch, const uint8_t *text,
                 size_t bytes, splitter_fn *fn, void *ctx, struct err *err);

#endif
