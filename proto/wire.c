#include "proto/wire.h"

#include <assert.h>
#include <stdbool.h>

#include "lib/utf8.h"

/* The schema has no recursive types; this is for a damaged descriptor walk only. */
#define DEPTH_MAX 16

struct walk {
    uint8_t *data; /* written only when clean */
    bool clean;
    struct err *err;
};

static bool varint(const uint8_t *data, size_t *at, size_t end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = data[(*at)++];
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static int malformed(const struct walk *w, const ProtobufCMessageDescriptor *type, const char *what)
{
    return err_set(w->err, ERR_PROTOCOL, "malformed %s message: %s", type->short_name, what);
}

/* Moves *at past the value of a field that has no strings in it. */
static bool skip(const struct walk *w, unsigned wire_type, size_t *at, size_t end, uint64_t *length)
{
    uint64_t bytes;
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return varint(w->data, at, end, &bytes);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        bytes = 8;
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        bytes = 4;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!varint(w->data, at, end, &bytes)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (bytes > end - *at) {
        return false;
    }
    *length = bytes;
    *at += (size_t)bytes;
    return true;
}

static int walk_message(const struct walk *w, const ProtobufCMessageDescriptor *type, size_t at,
                        size_t end, int depth)
{
    if (depth > DEPTH_MAX) {
        return malformed(w, type, "nested too deep");
    }
    while (at < end) {
        uint64_t tag;
        uint64_t length = 0;
        if (!varint(w->data, &at, end, &tag) || tag > UINT32_MAX || tag < 8) {
            return malformed(w, type, "bad tag");
        }
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
        unsigned wire_type = (unsigned)(tag & 7);
        if (!skip(w, wire_type, &at, end, &length)) {
            return malformed(w, type, field != NULL ? field->name : "cut short");
        }
        if (field == NULL ||
            (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)) {
            continue;
        }
        if (wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
            return malformed(w, type, field->name);
        }
        size_t start = at - (size_t)length;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            TRY(walk_message(w, field->descriptor, start, at, depth + 1));
        } else if (w->clean) {
            utf8_clean(w->data + start, (size_t)length);
        } else if (!utf8_valid(w->data + start, (size_t)length)) {
            return err_set(w->err, ERR_PROTOCOL, "field %s of a %s message is not UTF-8 text",
                           field->name, type->short_name);
        }
    }
    return 0;
}

int wire_check_strings(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                       struct err *err)
{
    struct walk w = {.data = (uint8_t *)(uintptr_t)data, .clean = false, .err = err};
    return walk_message(&w, type, 0, len, 0);
}

void wire_clean_strings(const ProtobufCMessageDescriptor *type, uint8_t *data, size_t len)
{
    struct walk w = {.data = data, .clean = true};
    int rc = walk_message(&w, type, 0, len, 0);
    assert(rc == 0);
}
