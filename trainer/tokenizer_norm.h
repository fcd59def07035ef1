/* The normaliser of a tokenizer.json: NFC, NFD, NFKC, NFKD, Prepend, Replace, and Sequence of them.
 */
#ifndef TRAINER_TOKENIZER_NORM_H
#define TRAINER_TOKENIZER_NORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/tokenizer_at.h"
#include "trainer/tokenizer_regex.h"

struct normaliser; /* immutable, shared by threads */

/* at: the file's normalizer; null is none. ERR_DATA. */
int normaliser_load(struct normaliser **n, const struct json_at *at, struct err *err);
void normaliser_destroy(struct normaliser *n);
bool normaliser_is_none(const struct normaliser *n);

/* Appends the normal form of a text (valid UTF-8) to out. */
int normaliser_run(const struct normaliser *n, struct regex_scratch *scratch, const uint8_t *text,
                   size_t bytes, struct buf *out, struct err *err);

#endif
