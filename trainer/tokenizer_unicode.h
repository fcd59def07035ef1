/* Unicode as the tokenizer needs it: UTF-8, and where the tables of the reference implementation
 * (the Python package `tokenizers`) are of another version than those of our libraries.
 *
 * Its regular expressions know Unicode 16.0, PCRE2's know what PCRE2 was built with. Code points
 * that differ are shown to PCRE2 as a stand-in: one that every version has had since 14.0, with the
 * same category, the same script where scripts can be asked for, and as many bytes, so that offsets
 * stay. Its normalisers know Unicode 9.0, where a younger code point neither decomposes nor
 * combines: it is inert, and what lies between inert ones is normalised apart. */
#ifndef TRAINER_TOKENIZER_UNICODE_H
#define TRAINER_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

struct unicode_stand_in {
    uint32_t first, last, stand_in;
};
struct unicode_range {
    uint32_t first, last;
};
/* Ascending. */
extern const struct unicode_stand_in unicode_stand_ins[];
extern const size_t unicode_stand_in_count;
extern const struct unicode_range unicode_inert[];
extern const size_t unicode_inert_count;

/* Digits that Unicode 17.0 added: numbers to the Digits pre-tokeniser alone. */
#define UNICODE_DIGIT_STAND_IN 0x2fffe
#define UNICODE_MAX            0x10ffff

/* The code point at p, which is UTF-8, and its bytes. */
static inline uint32_t unicode_at(const uint8_t *p, size_t *bytes)
{
    if (p[0] < 0x80) {
        *bytes = 1;
        return p[0];
    } else if (p[0] < 0xe0) {
        *bytes = 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    } else if (p[0] < 0xf0) {
        *bytes = 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *bytes = 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

/* Where the code point before p starts. */
static inline const uint8_t *unicode_before(const uint8_t *p)
{
    do {
        p--;
    } while ((*p & 0xc0) == 0x80);
    return p;
}

size_t unicode_put(uint32_t c, uint8_t out[4]); /* returns the bytes; c is a scalar value */
bool unicode_is_space(uint32_t c);              /* White_Space */
bool unicode_is_inert(uint32_t c);
uint32_t unicode_stand_in(uint32_t c); /* 0: none is needed */

/* How much of the text is UTF-8, from the start; *ascii: that part has no byte over 127. */
size_t unicode_valid_bytes(const uint8_t *text, size_t bytes, bool *ascii);
/* Appends the text, each maximal part that is no UTF-8 as U+FFFD (as Unicode recommends, and as
 * Python's errors='replace' does it). */
void unicode_append_replaced(const uint8_t *text, size_t bytes, struct buf *out);
/* Text of valid UTF-8 into *out (emptied first) with stand-ins; false, and *out is not touched,
 * when there is none in it. */
bool unicode_mask(const uint8_t *text, size_t bytes, struct buf *out);

#endif
