/* Values out of JSON objects, by dotted path. */
#ifndef PROTO_PICK_H
#define PROTO_PICK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The value; NULL when there is none on that path or it is null. Borrowed. */
const json_t *pick(const json_t *object, const char *path);

/* 0 when absent, as with a number of another kind. */
int64_t pick_int(const json_t *object, const char *path);
uint64_t pick_count(const json_t *object, const char *path); /* never below 0 */
/* "" when absent. Borrowed. */
const char *pick_text(const json_t *object, const char *path);
/* A time as pbjson writes it, as ms; false when absent. */
bool pick_time(const json_t *object, const char *path, int64_t *wall_ms);

#endif
