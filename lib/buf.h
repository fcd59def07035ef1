/* Growable byte buffer. A zeroed struct buf is empty and valid. */
#ifndef LIB_BUF_H
#define LIB_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned */
    size_t len;
    size_t capacity;
};

void buf_fini(struct buf *b);  /* frees; the buf is empty and valid again */
void buf_reset(struct buf *b); /* empty, memory kept */
void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *text); /* without the NUL */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint8_t *buf_reserve(struct buf *b, size_t len); /* room for len more bytes; len is not changed */
void buf_consume(struct buf *b, size_t len);     /* drops the first len bytes */
char *buf_cstr(struct buf *b); /* NUL-terminated view, valid until the next change */

#endif
