#include "report/escape.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/utf8.h"

/* Valid UTF-8 without control characters but newlines and tabs, and without U+FFFE and U+FFFF,
 * which no XML may have. Caller frees. */
static char *clean(const char *text)
{
    char *copy = mem_strdup(text);
    size_t len = strlen(copy);
    utf8_clean(copy, len);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)copy[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
            copy[i] = ' ';
        } else if (c == 0xef && (unsigned char)copy[i + 1] == 0xbf &&
                   (unsigned char)copy[i + 2] >= 0xbe) {
            memset(copy + i, '?', 3);
        }
    }
    return copy;
}

static const char *entity(char c)
{
    switch (c) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void escape_html(struct buf *out, const char *text)
{
    char *copy = clean(text);
    for (const char *p = copy; *p != 0; p++) {
        if (entity(*p) != NULL) {
            buf_append_str(out, entity(*p));
        } else {
            buf_append(out, p, 1);
        }
    }
    free(copy);
}

void escape_markdown(struct buf *out, const char *text)
{
    char *copy = clean(text);
    for (const char *p = copy; *p != 0; p++) {
        if (*p == '\n' || *p == '\t') {
            buf_append_str(out, " ");
        } else if (*p == '<' || *p == '>' || *p == '&') {
            buf_append_str(out, entity(*p));
        } else if (strchr("\\`*_[]|~#", *p) != NULL) {
            buf_printf(out, "\\%c", *p);
        } else {
            buf_append(out, p, 1);
        }
    }
    free(copy);
}
