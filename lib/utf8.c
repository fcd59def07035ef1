#include "lib/utf8.h"

#include <stdint.h>

/* Bytes of the sequence at p that is not ASCII, 0 when it is none. The allowed ranges of the second
 * byte are those of table 3-7 of the Unicode standard. */
static size_t long_sequence(const uint8_t *p, size_t left)
{
    uint8_t first = p[0];
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t bytes;
    if (first >= 0xc2 && first <= 0xdf) {
        bytes = 2;
    } else if (first >= 0xe0 && first <= 0xef) {
        bytes = 3;
        low = first == 0xe0 ? 0xa0 : low;
        high = first == 0xed ? 0x9f : high;
    } else if (first >= 0xf0 && first <= 0xf4) {
        bytes = 4;
        low = first == 0xf0 ? 0x90 : low;
        high = first == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (left < bytes || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < bytes; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }
    return bytes;
}

static inline size_t sequence_bytes(const uint8_t *p, size_t left)
{
    return p[0] < 0x80 ? p[0] != 0 : long_sequence(p, left);
}

bool utf8_valid(const void *text, size_t len)
{
    const uint8_t *p = text;
    for (size_t i = 0; i < len;) {
        size_t bytes = sequence_bytes(p + i, len - i);
        if (bytes == 0) {
            return false;
        }
        i += bytes;
    }
    return true;
}

void utf8_clean(void *text, size_t len)
{
    uint8_t *p = text;
    for (size_t i = 0; i < len;) {
        size_t bytes = sequence_bytes(p + i, len - i);
        if (bytes == 0) {
            p[i] = '?';
            bytes = 1;
        }
        i += bytes;
    }
}
