/* Byte-pair encoding as a tokenizer.json describes it. What of the format is supported is said by
 * the headers of its parts: tokenizer_added.h, _norm.h, _split.h, _bpe.h, _frame.h, _decode.h; all
 * else is refused when the file is read. */
#ifndef TRAINER_TOKENIZER_JSON_H
#define TRAINER_TOKENIZER_JSON_H

#include <stddef.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/tokenizer.h"

/* path: the file, or the folder it lies in. The token that ends a document is the eos_token of the
 * tokenizer_config.json beside it. */
int tokenizer_json_open(struct tokenizer **t, const char *path, struct err *err);

/* Its text alone. */
int tokenizer_json_read(const char *path, struct buf *text, struct err *err);
/* The path of a file of that name that belongs to it; NULL when only a tokenizer.json by its very
 * name has such files. Owned by the caller. */
char *tokenizer_json_beside(const char *path, const char *name);
/* The same from memory, with no token that ends a document. name is for messages. */
int tokenizer_json_parse(struct tokenizer **t, const char *text, size_t bytes, const char *name,
                         struct err *err);

#endif
