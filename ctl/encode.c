#include "ctl/encode.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/buf_json.h"

static void append_scalar(struct buf *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        buf_json_text(out, json_string_value(value));
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL: {
        size_t start = out->len;
        buf_json_double(out, json_real_value(value));
        if (strpbrk(buf_cstr(out) + start, ".en") == NULL) {
            buf_append_str(out, ".0"); /* a reader keeps the type */
        }
        break;
    }
    case JSON_TRUE:
        buf_append_str(out, "true");
        break;
    case JSON_FALSE:
        buf_append_str(out, "false");
        break;
    case JSON_NULL:
    case JSON_ARRAY:
    case JSON_OBJECT:
        buf_append_str(out, "null");
        break;
    }
}

static void newline(struct buf *out, bool pretty, int depth)
{
    if (pretty) {
        buf_printf(out, "\n%*s", depth * 2, "");
    }
}

static void json_at(struct buf *out, const json_t *value, bool pretty, int depth)
{
    if (json_is_array(value)) {
        buf_append_str(out, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            buf_append_str(out, i > 0 ? "," : "");
            newline(out, pretty, depth + 1);
            json_at(out, json_array_get(value, i), pretty, depth + 1);
        }
        if (json_array_size(value) > 0) {
            newline(out, pretty, depth);
        }
        buf_append_str(out, "]");
    } else if (json_is_object(value)) {
        buf_append_str(out, "{");
        const char *key = NULL;
        json_t *member = NULL;
        bool first = true;
        json_object_foreach((json_t *)(uintptr_t)value, key, member)
        {
            buf_append_str(out, first ? "" : ",");
            first = false;
            newline(out, pretty, depth + 1);
            buf_json_text(out, key);
            buf_append_str(out, pretty ? ": " : ":");
            json_at(out, member, pretty, depth + 1);
        }
        if (!first) {
            newline(out, pretty, depth);
        }
        buf_append_str(out, "}");
    } else {
        append_scalar(out, value);
    }
}

void encode_json(struct buf *out, const json_t *value, bool pretty)
{
    json_at(out, value, pretty, 0);
    buf_append_str(out, pretty ? "\n" : "");
}

/* Plain only where no YAML reader, 1.1 or 1.2, could take it for anything but this string. */
static bool is_plain(const char *text, size_t len)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on",
                                        "off",  "null",  "y",   "n"};
    if (len == 0 || strlen(text) != len || strchr("0123456789+-.~", text[0]) != NULL) {
        return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            return false;
        }
    }
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    return strspn(text, safe) == len;
}

static void yaml_scalar(struct buf *out, const json_t *value)
{
    if (json_is_string(value) && is_plain(json_string_value(value), json_string_length(value))) {
        buf_append_str(out, json_string_value(value));
    } else if (json_is_array(value)) {
        buf_append_str(out, "[]");
    } else if (json_is_object(value)) {
        buf_append_str(out, "{}");
    } else {
        append_scalar(out, value);
    }
}

static bool is_nested(const json_t *value)
{
    return json_array_size(value) > 0 || json_object_size(value) > 0;
}

static void yaml_at(struct buf *out, const json_t *value, int depth);

/* in_item: the first line stands behind a "- ". */
static void yaml_object(struct buf *out, const json_t *value, int depth, bool in_item)
{
    const char *key = NULL;
    json_t *member = NULL;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        buf_printf(out, "%*s", in_item ? 0 : depth * 2, "");
        in_item = false;
        json_t *name = json_string(key);
        yaml_scalar(out, name);
        json_decref(name);
        buf_append_str(out, is_nested(member) ? ":\n" : ": ");
        yaml_at(out, member, json_is_object(member) ? depth + 1 : depth);
    }
}

static void yaml_at(struct buf *out, const json_t *value, int depth)
{
    if (!is_nested(value)) {
        yaml_scalar(out, value);
        buf_append_str(out, "\n");
    } else if (json_is_object(value)) {
        yaml_object(out, value, depth, false);
    } else {
        for (size_t i = 0; i < json_array_size(value); i++) {
            const json_t *item = json_array_get(value, i);
            buf_printf(out, "%*s-%s", depth * 2, "",
                       json_is_array(item) && is_nested(item) ? "\n" : " ");
            if (json_is_object(item) && is_nested(item)) {
                yaml_object(out, item, depth + 1, true);
            } else {
                yaml_at(out, item, depth + 1);
            }
        }
    }
}

void encode_yaml(struct buf *out, const json_t *value)
{
    yaml_at(out, value, 0);
}

void encode_csv(struct buf *out, const json_t *value)
{
    if (value == NULL || json_is_null(value)) {
        return;
    }
    struct buf plain = {0};
    if (json_is_string(value)) {
        buf_append(&plain, json_string_value(value), json_string_length(value));
    } else {
        encode_json(&plain, value, false);
    }
    const char *text = buf_cstr(&plain);
    if (strpbrk(text, ",\"\r\n") == NULL && text[0] != ' ') {
        buf_append(out, plain.data, plain.len);
    } else {
        buf_append_str(out, "\"");
        for (const char *c = text; *c != 0; c++) {
            buf_append(out, *c == '"' ? "\"\"" : c, *c == '"' ? 2 : 1);
        }
        buf_append_str(out, "\"");
    }
    buf_fini(&plain);
}
