/* Regular expressions of a tokenizer.json, matched by PCRE2 with its JIT compiler. */
#ifndef TRAINER_TOKENIZER_REGEX_H
#define TRAINER_TOKENIZER_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/tokenizer_at.h"

struct regex;         /* immutable, shared by threads */
struct regex_scratch; /* one thread's */

/* Whether PCRE2 is young enough; to be called once, before the others. ERR_DATA. */
int regex_check_library(struct err *err);

/* source: UTF-8 in Oniguruma's syntax. ERR_DATA. */
int regex_create(struct regex **r, const char *source, size_t bytes, struct err *err);
/* source in PCRE2's syntax, as it stands, of our own. */
struct regex *regex_create_own(const char *source);
/* at: an object with a "Regex", or with a "String" to match as it is. ERR_DATA. */
int regex_load(struct regex **r, const struct json_at *at, struct err *err);
void regex_destroy(struct regex *r);

struct regex_scratch *regex_scratch_create(void);
void regex_scratch_destroy(struct regex_scratch *s);

/* A walk over the matches in a text of valid UTF-8, in which stand-ins (tokenizer_unicode.h) are in
 * place. Start from a zeroed one with text and bytes set. */
struct regex_walk {
    const uint8_t *text;
    size_t bytes;
    size_t start, end; /* of the match */
    size_t at;         /* where the next search starts */
    bool matched;      /* there was one, and it ended at `end` */
};
/* *found: there is a next match; none is empty right after another. ERR_DATA when it takes too much
 * memory, or steps. */
int regex_next(const struct regex *r, struct regex_scratch *s, struct regex_walk *w, bool *found,
               struct err *err);

#endif
