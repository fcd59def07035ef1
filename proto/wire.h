/* The strings of a packed message, found by its descriptor. protobuf-c checks neither UTF-8 nor
 * embedded NULs. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

/* ERR_PROTOCOL, with the field's name, at the first string that is not UTF-8 or holds a NUL, and at
 * what is no protobuf. */
int wire_check_strings(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                       struct err *err);
/* Replaces every byte that makes a string invalid by '?'. data is what protobuf-c packed. */
void wire_clean_strings(const ProtobufCMessageDescriptor *type, uint8_t *data, size_t len);

#endif
