#include "lib/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
    void *data = b->data;
    mem_grow(&data, &b->capacity, b->len + len + 1, 1);
    b->data = data;
    return b->data + b->len;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
    if (len > 0) {
        memcpy(buf_reserve(b, len), data, len);
        b->len += len;
    }
}

void buf_append_str(struct buf *b, const char *text)
{
    buf_append(b, text, strlen(text));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len > 0) {
        vsnprintf((char *)buf_reserve(b, (size_t)len), (size_t)len + 1, fmt, again);
        b->len += (size_t)len;
    }
    va_end(again);
}

void buf_consume(struct buf *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

char *buf_cstr(struct buf *b)
{
    *buf_reserve(b, 1) = 0;
    return (char *)b->data;
}
