#include "lib/buf_json.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Three-byte sequences that mean themselves in JSON but not in YAML: U+FEFF, U+FFFE and U+FFFF are
 * no YAML characters, and U+2028 and U+2029 are line breaks. */
static bool is_special_in_yaml(const unsigned char *p, unsigned *code)
{
    bool no_character =
        p[0] == 0xef && ((p[1] == 0xbb && p[2] == 0xbf) || (p[1] == 0xbf && p[2] >= 0xbe));
    bool line_break = p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9);
    if (no_character || line_break) {
        *code = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    return no_character || line_break;
}

void buf_json_text(struct buf *out, const char *text)
{
    if (text == NULL) {
        buf_append_str(out, "null");
        return;
    }
    buf_append(out, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)text; *p != 0; p++) {
        unsigned code;
        if (*p == '"' || *p == '\\') {
            buf_printf(out, "\\%c", *p);
        } else if (*p == '\n') {
            buf_append(out, "\\n", 2);
        } else if (*p == '\t') {
            buf_append(out, "\\t", 2);
        } else if (*p < 0x20 || *p == 0x7f) {
            buf_printf(out, "\\u%04x", *p);
        } else if (p[0] == 0xc2 && p[1] < 0xa0) { /* U+0080 to U+009F */
            buf_printf(out, "\\u%04x", p[1]);
            p++;
        } else if (is_special_in_yaml(p, &code)) {
            buf_printf(out, "\\u%04x", code);
            p += 2;
        } else {
            buf_append(out, p, 1);
        }
    }
    buf_append(out, "\"", 1);
}

void buf_json_double(struct buf *out, double value)
{
    if (!isfinite(value)) {
        buf_append_str(out, "null");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    buf_append_str(out, text);
}
