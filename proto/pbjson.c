/* protobuf-c's descriptors say where each field lies; what differs between fields beyond their type
 * is decided by name. */
#include "proto/pbjson.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/ds.pb-c.h"

/* brief: absent fields and empty lists are left out. */
static json_t *object_from(const ProtobufCMessage *message, const char *schema, bool brief);

static bool is_time(const ProtobufCFieldDescriptor *f)
{
    size_t len = strlen(f->name);
    return f->type == PROTOBUF_C_TYPE_INT64 &&
           (strcmp(f->name, "at") == 0 || strcmp(f->name, "since") == 0 ||
            (len > 3 && strcmp(f->name + len - 3, "_at") == 0));
}

static json_t *base64(const ProtobufCBinaryData *bytes)
{
    size_t room = (bytes->len + 2) / 3 * 4 + 1;
    unsigned char *text = mem_alloc(room);
    EVP_EncodeBlock(text, bytes->data, (int)bytes->len);
    json_t *value = json_string((const char *)text);
    free(text);
    return value;
}

static json_t *from_text(const ProtobufCFieldDescriptor *f, const char *text)
{
    json_t *value = NULL;
    if (strcmp(f->name, "spec") == 0 || strcmp(f->name, "layout") == 0) {
        value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    }
    value = value != NULL ? value : json_string(text);
    return value != NULL ? value : json_null(); /* not UTF-8: never came off the wire */
}

static json_t *from_i64(const ProtobufCFieldDescriptor *f, int64_t number)
{
    char text[CLOCK_TEXT_BYTES];
    if (!is_time(f)) {
        return json_integer(number);
    }
    clock_format_utc(number, text);
    return json_string(text);
}

/* JSON integers are 64 bits with sign here; what is over (a checksum, never a quantity) is text. */
static json_t *from_u64(uint64_t number)
{
    if (number <= INT64_MAX) {
        return json_integer((json_int_t)number);
    }
    return json_sprintf("%llu", (unsigned long long)number);
}

static json_t *from_double(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *from_enum(const ProtobufCFieldDescriptor *f, int number)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(f->descriptor, number);
    return value != NULL ? json_string(value->name) : json_integer(number);
}

/* One value of the field's type at `at`. */
static json_t *value_from(const ProtobufCFieldDescriptor *f, const void *at, bool brief)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return from_i64(f, *(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return from_u64(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return from_double((double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return from_double(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM:
        return from_enum(f, *(const int *)at);
    case PROTOBUF_C_TYPE_STRING:
        return from_text(f, *(const char *const *)at);
    case PROTOBUF_C_TYPE_BYTES:
        return base64(at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return object_from(*(const ProtobufCMessage *const *)at, NULL, brief);
    }
    return json_null();
}

static size_t item_bytes(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

static json_t *list_from(const ProtobufCFieldDescriptor *f, const char *items, size_t count,
                         bool brief)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, value_from(f, items + i * item_bytes(f), brief));
    }
    return list;
}

/* Repeated BadputEntry: {category: gpu_ms}. */
static json_t *badput_from(const Ds__BadputEntry *const *entries, size_t count)
{
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++) {
        json_object_set_new(object, entries[i]->category, from_u64(entries[i]->gpu_ms));
    }
    return object;
}

/* Whether an optional field is there. Texts and messages: a pointer; the rest has a flag. */
static bool is_present(const ProtobufCFieldDescriptor *f, const char *message)
{
    const void *at = message + f->offset;
    if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE) {
        return *(const void *const *)at != NULL;
    }
    return f->label == PROTOBUF_C_LABEL_REQUIRED ||
           *(const protobuf_c_boolean *)(message + f->quantifier_offset) != 0;
}

/* NULL: left out. */
static json_t *field_from(const ProtobufCFieldDescriptor *f, const char *message, bool brief)
{
    const void *at = message + f->offset;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(const size_t *)(message + f->quantifier_offset);
        const char *items = *(const char *const *)at;
        if (brief && count == 0) {
            return NULL;
        }
        if (f->descriptor == &ds__badput_entry__descriptor) {
            return badput_from((const Ds__BadputEntry *const *)(const void *)items, count);
        }
        return list_from(f, items, count, brief);
    }
    if (!is_present(f, message)) {
        return brief ? NULL : json_null();
    }
    return value_from(f, at, brief);
}

static void add_field(json_t *object, const ProtobufCFieldDescriptor *f, const char *message,
                      bool brief)
{
    json_t *value = field_from(f, message, brief);
    if (value != NULL) {
        json_object_set_new_nocheck(object, f->name, value); /* field names are ASCII */
    }
}

static json_t *object_from(const ProtobufCMessage *message, const char *schema, bool brief)
{
    json_t *object = json_object();
    if (schema != NULL) {
        json_object_set_new(object, "schema", json_string(schema));
    }
    const ProtobufCMessageDescriptor *type = message->descriptor;
    for (unsigned i = 0; i < type->n_fields; i++) {
        add_field(object, &type->fields[i], (const char *)message, brief);
    }
    return object;
}

json_t *pbjson_from(const ProtobufCMessage *message, const char *schema)
{
    return object_from(message, schema, false);
}

/* The mask says which of the type's fields. */
static json_t *row_from(const ProtobufCMessage *row, const bool *mask)
{
    json_t *object = json_object();
    for (unsigned i = 0; i < row->descriptor->n_fields; i++) {
        if (mask[i]) {
            add_field(object, &row->descriptor->fields[i], (const char *)row, true);
        }
    }
    return object;
}

static json_t *rows_from(const ProtobufCMessage *const *rows, size_t count, const bool *mask)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, row_from(rows[i], mask));
    }
    return list;
}

json_t *pbjson_rows(const ProtobufCMessage *list,
                    bool (*wanted)(const void *context, const char *field), const void *context)
{
    const ProtobufCFieldDescriptor *items =
        protobuf_c_message_descriptor_get_field_by_name(list->descriptor, "items");
    const ProtobufCMessageDescriptor *type = items->descriptor;
    const char *at = (const char *)list;
    bool *mask = mem_alloc_array(type->n_fields, sizeof *mask);
    for (unsigned i = 0; i < type->n_fields; i++) {
        mask[i] = wanted(context, type->fields[i].name);
    }
    json_t *object = json_object();
    for (unsigned i = 0; i < list->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &list->descriptor->fields[i];
        if (f != items) {
            add_field(object, f, at, true);
        }
    }
    json_object_set_new(
        object, "items",
        rows_from(*(const ProtobufCMessage *const *const *)(const void *)(at + items->offset),
                  *(const size_t *)(const void *)(at + items->quantifier_offset), mask));
    free(mask);
    return object;
}
