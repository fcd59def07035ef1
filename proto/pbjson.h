/* Any message of ds.proto as JSON, by reflection. snake_case keys as in the schema; fields named
 * *_at, `at` and `since` as RFC 3339 UTC; absent optional fields as null; bytes as base64; repeated
 * BadputEntry as an object; `spec` and `layout` (JSON text) as the object itself; NaN and infinity
 * as null. */
#ifndef PROTO_PBJSON_H
#define PROTO_PBJSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/* New reference. schema: top-level "schema" value such as "ds/job/v1", first key; NULL for none. */
json_t *pbjson_from(const ProtobufCMessage *message, const char *schema);
/* Of a list of messages in `items`, for who only looks values up: each of them with the wanted
 * fields alone, and nothing absent or empty. */
json_t *pbjson_rows(const ProtobufCMessage *list,
                    bool (*wanted)(const void *context, const char *field), const void *context);

#endif
