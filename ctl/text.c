#include "ctl/text.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/utf8.h"

/* Decodes one code point of text that is meant to be UTF-8; returns its bytes, 1 for a byte that
 * starts none. */
static size_t decode(const char *text, size_t len, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t bytes = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 1;
    if (bytes == 1 || bytes > len) {
        *code = s[0] < 0x80 ? s[0] : '?';
        return 1;
    }
    *code = s[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        *code = *code << 6 | (s[i] & 0x3f);
    }
    return bytes;
}

/* Not wcwidth(), which knows nothing in the C locale that containers run in. */
static size_t columns_of(uint32_t c)
{
    if (c < 0x300) { /* nearly always */
        return 1;
    }
    if (c <= 0x36f || (c >= 0x200b && c <= 0x200f) || (c >= 0xfe00 && c <= 0xfe0f)) {
        return 0;
    }
    bool wide = (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) ||
                (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
                (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1f64f) ||
                (c >= 0x1f900 && c <= 0x1f9ff) || (c >= 0x20000 && c <= 0x3fffd);
    return wide ? 2 : 1;
}

/* Length of the colour sequence at s, 0 when there is none. */
static size_t colour_bytes(const char *s, size_t len)
{
    if (len < 3 || s[0] != '\033' || s[1] != '[') {
        return 0;
    }
    size_t i = 2;
    while (i < len && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';')) {
        i++;
    }
    return i < len && s[i] == 'm' ? i + 1 : 0;
}

size_t text_cut(const char *text, size_t len, size_t columns)
{
    size_t used = 0;
    for (size_t i = 0; i < len;) {
        size_t skip = colour_bytes(text + i, len - i);
        if (skip > 0) {
            i += skip;
            continue;
        }
        uint32_t c = 0;
        size_t bytes = decode(text + i, len - i, &c);
        used += columns_of(c);
        if (used > columns) {
            return i;
        }
        i += bytes;
    }
    return len;
}

size_t text_width(const char *text, size_t len)
{
    size_t width = 0;
    for (size_t i = 0; i < len;) {
        if (text[i] >= ' ' && text[i] <= '~') {
            width++;
            i++;
            continue;
        }
        size_t skip = colour_bytes(text + i, len - i);
        if (skip > 0) {
            i += skip;
            continue;
        }
        uint32_t c = 0;
        size_t bytes = decode(text + i, len - i, &c);
        width += columns_of(c);
        i += bytes;
    }
    return width;
}

void text_append_clean(struct buf *out, const char *text)
{
    size_t start = out->len;
    buf_append_str(out, text);
    text_clean(out, start);
}

void text_clean(struct buf *out, size_t start)
{
    if (out->len == start) {
        return;
    }
    utf8_clean(out->data + start, out->len - start);
    for (size_t i = start; i < out->len; i++) {
        uint8_t *c = &out->data[i];
        if (*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        } else if (*c == 0xc2 && c[1] < 0xa0) { /* U+0080..U+009F, controls too */
            c[0] = c[1] = ' ';
        }
    }
}

void text_upper(char *text)
{
    for (; text != NULL && *text != 0; text++) {
        *text = (char)toupper((unsigned char)*text);
    }
}

void text_lower(char *text)
{
    for (; text != NULL && *text != 0; text++) {
        *text = (char)tolower((unsigned char)*text);
    }
}

static unsigned least_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned text_distance(const char *a, const char *b)
{
    size_t rows = strlen(a) + 1;
    size_t width = strlen(b) + 1;
    unsigned *d = mem_alloc_array(rows * width, sizeof *d);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < width; j++) {
            if (i == 0 || j == 0) {
                d[i * width + j] = (unsigned)(i + j);
                continue;
            }
            unsigned replaced = d[(i - 1) * width + j - 1] + (a[i - 1] != b[j - 1]);
            unsigned best =
                least_of(replaced, 1 + least_of(d[(i - 1) * width + j], d[i * width + j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = least_of(best, 1 + d[(i - 2) * width + j - 2]);
            }
            d[i * width + j] = best;
        }
    }
    unsigned distance = d[rows * width - 1];
    free(d);
    return distance;
}
