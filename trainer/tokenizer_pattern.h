/* Regular expressions of a tokenizer.json are Oniguruma's, in Ruby's syntax; ours are PCRE2's. Many
 * mean something else in the two: \s \w \h \v . $ {,n} {n}+ (?m) [[a]b] \pL. This reads the one and
 * writes the other, every construct spelled out, and refuses what it does not know. */
#ifndef TRAINER_TOKENIZER_PATTERN_H
#define TRAINER_TOKENIZER_PATTERN_H

#include <stddef.h>

#include "lib/buf.h"
#include "lib/err.h"

/* Appends the pattern for PCRE2, compiled with PCRE2_UTF, to out. source: UTF-8. ERR_DATA with the
 * place and the reason. */
int pattern_translate(const char *source, size_t bytes, struct buf *out, struct err *err);

/* Characters of \w in the regular expressions that the reference uses beside Oniguruma, for PCRE2:
 * the inside of a class. */
#define PATTERN_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

#endif
