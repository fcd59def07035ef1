#include "trainer/tokenizer_at.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"

#define VALUE_BYTES_MAX 100

struct json_at json_at_file(const char *file, const json_t *value)
{
    return (struct json_at){.file = file, .value = value};
}

struct json_at json_at_key(const struct json_at *outer, const char *key)
{
    return (struct json_at){.file = outer->file,
                            .outer = outer,
                            .key = key,
                            .value = json_object_get(outer->value, key)};
}

struct json_at json_at_item(const struct json_at *outer, size_t index)
{
    return (struct json_at){.file = outer->file,
                            .outer = outer,
                            .index = index,
                            .value = json_array_get(outer->value, index)};
}

bool json_at_none(const struct json_at *at)
{
    return at->value == NULL || json_is_null(at->value);
}

static void print_path(const struct json_at *at, struct buf *out)
{
    if (at->outer == NULL) {
        return;
    }
    print_path(at->outer, out);
    if (at->key == NULL) {
        buf_printf(out, "[%zu]", at->index);
    } else {
        buf_printf(out, "%s%s", at->outer->outer != NULL ? "." : "", at->key);
    }
}

static void print_value(const json_t *value, struct buf *out)
{
    if (value == NULL) {
        buf_append_str(out, "missing");
    } else if (json_is_object(value)) {
        buf_append_str(out, "an object");
    } else if (json_is_array(value)) {
        buf_append_str(out, "a list");
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        buf_printf(out, "%.*s%s", VALUE_BYTES_MAX, text != NULL ? text : "?",
                   text != NULL && strlen(text) > VALUE_BYTES_MAX ? "..." : "");
        free(text);
    }
}

int json_at_refuse(const struct json_at *at, struct err *err, const char *why, ...)
{
    struct buf where = {0};
    struct buf value = {0};
    char reason[320];
    va_list args;
    va_start(args, why);
    vsnprintf(reason, sizeof reason, why, args);
    va_end(args);
    print_path(at, &where);
    print_value(at->value, &value);
    int rc = at->outer == NULL ? err_set(err, ERR_DATA, "%s: %s", at->file, reason)
                               : err_set(err, ERR_DATA, "%s: %s is %s: %s", at->file,
                                         buf_cstr(&where), buf_cstr(&value), reason);
    buf_fini(&where);
    buf_fini(&value);
    return rc;
}

int json_at_bool(const struct json_at *at, bool *out, struct err *err)
{
    *out = json_is_true(at->value);
    return json_is_boolean(at->value) ? 0 : json_at_refuse(at, err, "true or false is needed");
}

int json_at_bool_or(const struct json_at *at, bool or, bool *out, struct err *err)
{
    *out = or ;
    return json_at_none(at) ? 0 : json_at_bool(at, out, err);
}

int json_at_u32(const struct json_at *at, uint32_t max, uint32_t *out, struct err *err)
{
    json_int_t v = json_integer_value(at->value);
    if (!json_is_integer(at->value) || v < 0 || v > (json_int_t)max) {
        return json_at_refuse(at, err, "a number from 0 to %u is needed", max);
    }
    *out = (uint32_t)v;
    return 0;
}

int json_at_text(const struct json_at *at, const char **out, size_t *bytes, struct err *err)
{
    if (!json_is_string(at->value)) {
        return json_at_refuse(at, err, "text is needed");
    }
    *out = json_string_value(at->value);
    *bytes = json_string_length(at->value);
    return 0;
}

int json_at_array(const struct json_at *at, size_t *count, struct err *err)
{
    *count = json_array_size(at->value);
    return json_is_array(at->value) ? 0 : json_at_refuse(at, err, "a list is needed");
}

int json_at_object(const struct json_at *at, struct err *err)
{
    return json_is_object(at->value) ? 0 : json_at_refuse(at, err, "an object is needed");
}

int json_at_type(const struct json_at *at, const char **type, struct err *err)
{
    size_t bytes;
    TRY(json_at_object(at, err));
    struct json_at key = json_at_key(at, "type");
    return json_at_text(&key, type, &bytes, err);
}

static bool is_listed(const char *key, const char *keys)
{
    size_t length = strlen(key);
    for (const char *at = strstr(keys, key); length > 0 && at != NULL; at = strstr(at + 1, key)) {
        bool starts = at == keys || at[-1] == ' ';
        if (starts && (at[length] == ' ' || at[length] == 0)) {
            return true;
        }
    }
    return false;
}

int json_at_only(const struct json_at *at, const char *keys, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)at->value, key, value)
    {
        if (!is_listed(key, keys) && !json_is_null(value) && !json_is_false(value)) {
            struct json_at unknown = json_at_key(at, key);
            return json_at_refuse(&unknown, err, "this key is not known (known are %s)", keys);
        }
    }
    return 0;
}
