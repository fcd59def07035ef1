#include "trainer/tokenizer_unicode.h"

#include <string.h>

size_t unicode_put(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    } else if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    } else if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xd) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool unicode_is_inert(uint32_t c)
{
    size_t low = 0;
    size_t high = unicode_inert_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unicode_inert[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < unicode_inert_count && c >= unicode_inert[low].first;
}

uint32_t unicode_stand_in(uint32_t c)
{
    size_t low = 0;
    size_t high = unicode_stand_in_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unicode_stand_ins[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < unicode_stand_in_count && c >= unicode_stand_ins[low].first;
    return found ? unicode_stand_ins[low].stand_in : 0;
}

/* The bytes at p that are a code point: 0 when they are none, and then *bad is the length of the
 * maximal invalid part. Table 3-7 of the Unicode standard. */
static size_t sequence_at(const uint8_t *p, size_t left, size_t *bad)
{
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t need;
    *bad = 1;
    if (p[0] < 0x80) {
        return 1;
    } else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        need = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        need = 3;
        low = p[0] == 0xe0 ? 0xa0 : low;
        high = p[0] == 0xed ? 0x9f : high;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        need = 4;
        low = p[0] == 0xf0 ? 0x90 : low;
        high = p[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    for (size_t i = 1; i < need; i++) {
        if (i >= left || p[i] < low || p[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

size_t unicode_valid_bytes(const uint8_t *text, size_t bytes, bool *ascii)
{
    size_t i = 0;
    *ascii = true;
    while (i < bytes) {
        uint64_t eight;
        if (text[i] < 0x80 && bytes - i >= sizeof eight) {
            memcpy(&eight, text + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size_t bad;
        size_t length = sequence_at(text + i, bytes - i, &bad);
        if (length == 0) {
            break;
        }
        *ascii = *ascii && length == 1;
        i += length;
    }
    return i;
}

void unicode_append_replaced(const uint8_t *text, size_t bytes, struct buf *out)
{
    while (bytes > 0) {
        bool ascii;
        size_t good = unicode_valid_bytes(text, bytes, &ascii);
        buf_append(out, text, good);
        text += good;
        bytes -= good;
        if (bytes > 0) {
            size_t bad;
            sequence_at(text, bytes, &bad);
            buf_append_str(out, "\xef\xbf\xbd");
            text += bad;
            bytes -= bad;
        }
    }
}

bool unicode_mask(const uint8_t *text, size_t bytes, struct buf *out)
{
    bool any = false;
    size_t length;
    for (size_t i = 0; i < bytes; i += length) {
        if (text[i] < 0xe0) { /* shorter ones have none */
            length = text[i] < 0x80 ? 1 : 2;
            continue;
        }
        uint32_t c = unicode_stand_in(unicode_at(text + i, &length));
        if (c != 0 && !any) {
            any = true;
            buf_reset(out);
            buf_append(out, text, bytes);
        }
        if (c != 0) {
            unicode_put(c, out->data + i);
        }
    }
    return any;
}
