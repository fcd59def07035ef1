#include "trainer/tokenizer_alphabet.h"

#include "trainer/tokenizer_unicode.h"

/* The bytes that are no printable character of Latin-1: 0-32, 127-160 and 173. */
#define LOW     33
#define HIGH    127
#define HIGH_TO 161
#define SOFT    173

#define HIGH_AT (0x100 + LOW)
#define SOFT_AT (HIGH_AT + HIGH_TO - HIGH)

uint32_t alphabet_char(uint8_t byte)
{
    if (byte < LOW) {
        return 0x100u + byte;
    } else if (byte >= HIGH && byte < HIGH_TO) {
        return HIGH_AT + (uint32_t)byte - HIGH;
    }
    return byte == SOFT ? SOFT_AT : byte;
}

bool alphabet_byte(uint32_t c, uint8_t *byte)
{
    if (c < 0x100) {
        *byte = (uint8_t)c;
        return alphabet_char(*byte) == c;
    } else if (c < HIGH_AT) {
        *byte = (uint8_t)(c - 0x100);
    } else if (c < SOFT_AT) {
        *byte = (uint8_t)(c - HIGH_AT + HIGH);
    } else {
        *byte = SOFT;
    }
    return c <= SOFT_AT;
}

bool alphabet_append_bytes(const uint8_t *text, size_t bytes, struct buf *out)
{
    size_t before = out->len;
    size_t length;
    for (size_t i = 0; i < bytes; i += length) {
        uint8_t byte;
        if (!alphabet_byte(unicode_at(text + i, &length), &byte)) {
            out->len = before;
            return false;
        }
        buf_append(out, &byte, 1);
    }
    return true;
}
