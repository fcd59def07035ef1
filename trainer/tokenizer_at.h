/* A value in a JSON file together with where it is, so that what is wrong with it can be told with
 * the file, the key and the value. They live on the stack, each pointing to the one around it. */
#ifndef TRAINER_TOKENIZER_AT_H
#define TRAINER_TOKENIZER_AT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct json_at {
    const char *file;            /* borrowed */
    const struct json_at *outer; /* borrowed; NULL: the whole file */
    const char *key;             /* borrowed; NULL: the index counts */
    size_t index;
    const json_t *value; /* borrowed; NULL: there is none */
};

struct json_at json_at_file(const char *file, const json_t *value);
struct json_at json_at_key(const struct json_at *outer, const char *key);
struct json_at json_at_item(const struct json_at *outer, size_t index);

/* Not there, or null. */
bool json_at_none(const struct json_at *at);

/* "FILE: KEY is VALUE: why"; returns ERR_DATA. */
int json_at_refuse(const struct json_at *at, struct err *err, const char *why, ...)
    __attribute__((format(printf, 3, 4)));

/* Each refuses a value of another type; those with `or` take that when there is none. */
int json_at_bool(const struct json_at *at, bool *out, struct err *err);
int json_at_bool_or(const struct json_at *at, bool or, bool *out, struct err *err);
int json_at_u32(const struct json_at *at, uint32_t max, uint32_t *out, struct err *err);
int json_at_text(const struct json_at *at, const char **out, size_t *bytes, struct err *err);
int json_at_array(const struct json_at *at, size_t *count, struct err *err);
int json_at_object(const struct json_at *at, struct err *err);
/* The "type" of an object. */
int json_at_type(const struct json_at *at, const char **type, struct err *err);
/* keys: separated by spaces. Refuses an object that has others, unless they are null or false. */
int json_at_only(const struct json_at *at, const char *keys, struct err *err);

#endif
