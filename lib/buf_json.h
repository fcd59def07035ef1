/* JSON values, written so that a YAML reader takes them too. */
#ifndef LIB_BUF_JSON_H
#define LIB_BUF_JSON_H

#include "lib/buf.h"

/* In quotes, escaped; text must be UTF-8. NULL is null. */
void buf_json_text(struct buf *out, const char *text);
/* The shortest form that reads back as the same value; null when it is not finite. */
void buf_json_double(struct buf *out, double value);

#endif
