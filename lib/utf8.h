/* UTF-8: what is text and what is not. */
#ifndef LIB_UTF8_H
#define LIB_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 (no overlong forms, no surrogates, nothing past U+10FFFF) without a NUL. */
bool utf8_valid(const void *text, size_t len);
/* Makes it so, in place and at the same length: every byte that cannot stand there becomes '?'. */
void utf8_clean(void *text, size_t len);

#endif
