/* The tables of yaml.h: one walk over a map, one case per type. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/yaml.h"

static const char *kind_name(const struct yaml_item *item)
{
    switch (item->kind) {
    case YAML_ITEM_NULL:
        return "nothing";
    case YAML_ITEM_LIST:
        return "a list";
    case YAML_ITEM_MAP:
        return "a map";
    case YAML_ITEM_SCALAR:
        break;
    }
    return item->plain ? item->text : "text in quotes";
}

static bool is_plain(const struct yaml_item *item)
{
    return item->kind == YAML_ITEM_SCALAR && item->plain;
}

int yaml_to_bool(const struct yaml_item *item, bool *value, struct err *err)
{
    if (is_plain(item) && (strcmp(item->text, "true") == 0 || strcmp(item->text, "false") == 0)) {
        *value = item->text[0] == 't';
        return 0;
    }
    return yaml_refuse(item, err, "%s is not a truth value (allowed: true, false)",
                       kind_name(item));
}

/* JSON's integers: no leading zero, which older YAML reads as octal. */
static bool is_integer(const char *text)
{
    text += *text == '-';
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && text[digits] == 0 && (digits == 1 || text[0] != '0');
}

int yaml_to_i64(const struct yaml_item *item, int64_t low, int64_t high, int64_t *value,
                struct err *err)
{
    errno = 0;
    long long parsed = is_plain(item) && is_integer(item->text) ? strtoll(item->text, NULL, 10) : 0;
    if (!is_plain(item) || !is_integer(item->text)) {
        return yaml_refuse(item, err,
                           "%s is not a whole number (allowed: %" PRId64 " to %" PRId64 ")",
                           kind_name(item), low, high);
    }
    if (errno == ERANGE || parsed < low || parsed > high) {
        return yaml_refuse(item, err, "%s is out of range (allowed: %" PRId64 " to %" PRId64 ")",
                           item->text, low, high);
    }
    *value = parsed;
    return 0;
}

int yaml_to_u64(const struct yaml_item *item, uint64_t low, uint64_t high, uint64_t *value,
                struct err *err)
{
    if (!is_plain(item) || !is_integer(item->text)) {
        return yaml_refuse(item, err,
                           "%s is not a whole number (allowed: %" PRIu64 " to %" PRIu64 ")",
                           kind_name(item), low, high);
    }
    errno = 0;
    unsigned long long parsed = strtoull(item->text, NULL, 10);
    if (errno == ERANGE || item->text[0] == '-' || parsed < low || parsed > high) {
        return yaml_refuse(item, err, "%s is out of range (allowed: %" PRIu64 " to %" PRIu64 ")",
                           item->text, low, high);
    }
    *value = parsed;
    return 0;
}

static bool is_number(const char *text)
{
    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, "0123456789");
    text += whole;
    size_t fraction = 0;
    if (*text == '.') {
        fraction = strspn(++text, "0123456789");
        text += fraction;
    }
    if (whole + fraction == 0) {
        return false;
    }
    if (*text == 'e' || *text == 'E') {
        text++;
        text += *text == '-' || *text == '+';
        size_t digits = strspn(text, "0123456789");
        return digits > 0 && text[digits] == 0;
    }
    return *text == 0;
}

int yaml_to_double(const struct yaml_item *item, double *value, struct err *err)
{
    if (!is_plain(item) || !is_number(item->text)) {
        return yaml_refuse(item, err, "%s is not a number (allowed: such as 0.1 or 2.2e-4)",
                           kind_name(item));
    }
    double parsed = strtod(item->text, NULL);
    if (!isfinite(parsed)) {
        return yaml_refuse(item, err, "%s is too large for a number", item->text);
    }
    *value = parsed;
    return 0;
}

static int read_text(const struct yaml_item *item, const struct yaml_field *f, char **place,
                     struct err *err)
{
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err, "%s where text is expected (allowed: %s)", kind_name(item),
                           f->allowed != NULL ? f->allowed : "one text");
    }
    if (f->valid != NULL ? !f->valid(item->text) : item->text[0] == 0) {
        return yaml_refuse(item, err, "'%.200s' is not valid (allowed: %s)", item->text,
                           f->allowed != NULL ? f->allowed : "not empty");
    }
    free(*place);
    *place = mem_strdup(item->text);
    return 0;
}

static int read_double(const struct yaml_item *item, const struct yaml_field *f, double *place,
                       struct err *err)
{
    double value;
    TRY(yaml_to_double(item, &value, err));
    if (value < f->min || value > f->max) {
        return yaml_refuse(item, err, "%s is out of range (allowed: %g to %g)", item->text, f->min,
                           f->max);
    }
    *place = value;
    return 0;
}

static int read_choice(const struct yaml_item *item, const struct yaml_field *f, int *place,
                       struct err *err)
{
    struct buf allowed = {0};
    for (int i = 0; f->choices[i] != NULL; i++) {
        if (item->kind == YAML_ITEM_SCALAR && strcmp(item->text, f->choices[i]) == 0) {
            buf_fini(&allowed);
            *place = i;
            return 0;
        }
        buf_printf(&allowed, "%s%s", i > 0 ? ", " : "", f->choices[i]);
    }
    int rc = yaml_refuse(item, err, "%s is not one of them (allowed: %s)",
                         item->kind == YAML_ITEM_SCALAR ? item->text : kind_name(item),
                         buf_cstr(&allowed));
    buf_fini(&allowed);
    return rc;
}

/* ---- unknown keys */
#define NAME_MAX_COMPARED 63u

/* Edit distance, swaps of neighbours counted once. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a);
    size_t m = strlen(b);
    if (n > NAME_MAX_COMPARED || m > NAME_MAX_COMPARED) {
        return SIZE_MAX;
    }
    size_t rows[3][NAME_MAX_COMPARED + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++) {
        last[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            now[j] = best;
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[m];
}

static const char *nearest(const char *key, const struct yaml_field *fields)
{
    const char *found = NULL;
    size_t best = strlen(key) / 3 + 2;
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        size_t d = distance(key, f->key);
        if (d < best) {
            best = d;
            found = f->key;
        }
    }
    return found;
}

/* The dotted path of a key of exactly this name anywhere in the tables. */
static bool elsewhere(const char *key, const struct yaml_field *fields, struct buf *path)
{
    size_t start = path->len;
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        path->len = start;
        buf_printf(path, "%s%s", start > 0 ? "." : "", f->key);
        if (strcmp(f->key, key) == 0 || (f->type == YAML_MAP && elsewhere(key, f->fields, path))) {
            return true;
        }
    }
    path->len = start;
    return false;
}

static int refuse_unknown(const struct yaml_item *item, const struct yaml_field *fields,
                          const struct yaml_field *root, struct err *err)
{
    struct buf hint = {0};
    struct buf path = {0};
    const char *near = nearest(item->key, fields);
    if (near != NULL) {
        buf_printf(&hint, ", did you mean '%s'?", near);
    } else if (elsewhere(item->key, root, &path)) {
        buf_printf(&hint, ", did you mean '%s'?", buf_cstr(&path));
    }
    buf_append_str(&hint, " (allowed:");
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        buf_printf(&hint, "%s %s", f == fields ? "" : ",", f->key);
    }
    struct yaml_item at_key = *item;
    at_key.line = item->key_line;
    at_key.column = item->key_column;
    int rc = yaml_refuse(&at_key, err, "unknown%s)", buf_cstr(&hint));
    buf_fini(&hint);
    buf_fini(&path);
    return rc;
}

/* ---- the walk */
struct reading {
    const struct yaml_field *root; /* where hints look for a key that stands in the wrong map */
    bool open;
};

static int read_map(const struct reading *r, const struct yaml_item *map,
                    const struct yaml_field *fields, void *object, struct err *err);

static int read_u32(const struct yaml_item *item, const struct yaml_field *f, uint32_t *place,
                    struct err *err)
{
    uint64_t value;
    TRY(yaml_to_u64(item, (uint64_t)f->low, f->high, &value, err));
    *place = (uint32_t)value;
    return 0;
}

static int read_field(const struct reading *r, const struct yaml_item *item,
                      const struct yaml_field *f, void *object, struct err *err)
{
    void *place = (char *)object + f->offset;
    switch (f->type) {
    case YAML_TEXT:
        return read_text(item, f, place, err);
    case YAML_BOOL:
        return yaml_to_bool(item, place, err);
    case YAML_U32:
        return read_u32(item, f, place, err);
    case YAML_U64:
        return yaml_to_u64(item, (uint64_t)f->low, f->high, place, err);
    case YAML_I64:
        return yaml_to_i64(item, f->low, (int64_t)f->high, place, err);
    case YAML_DOUBLE:
        return read_double(item, f, place, err);
    case YAML_CHOICE:
        return read_choice(item, f, place, err);
    case YAML_MAP:
        return read_map(r, item, f->fields, place, err);
    case YAML_CUSTOM:
        return f->read(item, place, err);
    }
    return 0;
}

static const struct yaml_field *field_of(const struct yaml_field *fields, const char *key)
{
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        if (strcmp(f->key, key) == 0) {
            return f;
        }
    }
    return NULL;
}

static bool is_slip(const struct yaml_item *map, const char *key, const struct yaml_field *fields)
{
    const char *near = nearest(key, fields);
    return near != NULL && distance(key, near) == 1 && yaml_get(map, near) == NULL;
}

static int read_entry(const struct reading *r, const struct yaml_item *item,
                      const struct yaml_field *fields, void *object, struct err *err)
{
    const struct yaml_field *f = field_of(fields, item->key);
    if (f == NULL) {
        bool ignored = r->open && !is_slip(item->parent, item->key, fields);
        return ignored ? 0 : refuse_unknown(item, fields, r->root, err);
    }
    return item->kind == YAML_ITEM_NULL ? 0 : read_field(r, item, f, object, err);
}

static int read_map(const struct reading *r, const struct yaml_item *map,
                    const struct yaml_field *fields, void *object, struct err *err)
{
    if (map->kind != YAML_ITEM_MAP && !(map->kind == YAML_ITEM_NULL && map->parent == NULL)) {
        return yaml_refuse(map, err, "%s where a map is expected (key: value lines)",
                           kind_name(map));
    }
    for (size_t i = 0; i < map->count; i++) {
        TRY(read_entry(r, map->items[i], fields, object, err));
    }
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        if (f->required && yaml_get(map, f->key) == NULL) {
            return yaml_refuse(map, err, "'%s' is missing%s%s%s", f->key,
                               f->allowed != NULL ? " (allowed: " : "",
                               f->allowed != NULL ? f->allowed : "", f->allowed != NULL ? ")" : "");
        }
    }
    return 0;
}

int yaml_read(const struct yaml_item *map, const struct yaml_field *fields, void *object,
              struct err *err)
{
    return read_map(&(struct reading){.root = fields, .open = false}, map, fields, object, err);
}

int yaml_read_open(const struct yaml_item *map, const struct yaml_field *fields, void *object,
                   struct err *err)
{
    return read_map(&(struct reading){.root = fields, .open = true}, map, fields, object, err);
}
