/* libyaml builds a document of nodes; this turns it into a tree of our own: bounded, with aliases
 * expanded, and open to overrides. */
#include "lib/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/utf8.h"

struct builder {
    yaml_document_t *document;
    const char *source;
    size_t items_left, bytes_left;
    struct err *err;
};

static void item_destroy(struct yaml_item *item)
{
    if (item == NULL) {
        return;
    }
    for (size_t i = 0; i < item->count; i++) {
        item_destroy(item->items[i]);
    }
    free(item->items);
    free(item->text);
    free(item->key);
    free(item);
}

static struct yaml_item *item_create(enum yaml_item_kind kind, const char *source)
{
    struct yaml_item *item = mem_alloc(sizeof *item);
    item->kind = kind;
    item->source = source;
    return item;
}

static void item_add(struct yaml_item *parent, struct yaml_item *item)
{
    if ((parent->count & (parent->count - 1)) == 0) { /* full at each power of two */
        size_t capacity = parent->count == 0 ? 1 : parent->count * 2;
        parent->items = mem_resize(parent->items, capacity * sizeof(struct yaml_item *));
    }
    parent->items[parent->count++] = item;
    item->parent = parent;
}

static int refuse_at(const struct builder *b, yaml_mark_t mark, const char *what)
{
    return err_set(b->err, ERR_INVALID, "%s:%zu:%zu: %s", b->source, mark.line + 1, mark.column + 1,
                   what);
}

static bool is_null(const char *text)
{
    return text[0] == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
           strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

static bool is_core_tag(const yaml_char_t *tag)
{
    return tag == NULL || strncmp((const char *)tag, "tag:yaml.org,2002:", 18) == 0;
}

static int copy_text(struct builder *b, const yaml_node_t *node, char **text)
{
    size_t bytes = node->data.scalar.length;
    if (memchr(node->data.scalar.value, 0, bytes) != NULL) {
        return refuse_at(b, node->start_mark, "text with a NUL byte");
    }
    if (bytes > b->bytes_left) {
        return refuse_at(b, node->start_mark, "too much text once aliases are expanded");
    }
    b->bytes_left -= bytes;
    *text = mem_strdup((const char *)node->data.scalar.value);
    return 0;
}

static int build(struct builder *b, int index, unsigned depth, struct yaml_item **out);

static int build_list(struct builder *b, const yaml_node_t *node, unsigned depth,
                      struct yaml_item *list)
{
    for (const yaml_node_item_t *at = node->data.sequence.items.start;
         at < node->data.sequence.items.top; at++) {
        struct yaml_item *item;
        TRY(build(b, *at, depth + 1, &item));
        item_add(list, item);
    }
    return 0;
}

static int build_entry(struct builder *b, const yaml_node_pair_t *pair, unsigned depth,
                       struct yaml_item *map)
{
    const yaml_node_t *key = yaml_document_get_node(b->document, pair->key);
    if (key->type != YAML_SCALAR_NODE) {
        return refuse_at(b, key->start_mark, "a key must be text");
    }
    char *text;
    struct yaml_item *item;
    if (map->count == YAML_MAP_MAX) {
        return refuse_at(b, key->start_mark, "too many keys in one map (at most 1000)");
    }
    TRY(copy_text(b, key, &text));
    for (size_t i = 0; i < map->count; i++) {
        if (strcmp(map->items[i]->key, text) == 0) {
            int rc =
                err_set(b->err, ERR_INVALID, "%s:%zu:%zu: key '%s': given twice (first in line %u)",
                        b->source, key->start_mark.line + 1, key->start_mark.column + 1, text,
                        map->items[i]->key_line);
            free(text);
            return rc;
        }
    }
    int rc = build(b, pair->value, depth + 1, &item);
    if (rc != 0) {
        free(text);
        return rc;
    }
    item->key = text;
    item->key_line = (uint32_t)key->start_mark.line + 1;
    item->key_column = (uint32_t)key->start_mark.column + 1;
    item_add(map, item);
    return 0;
}

static int build_map(struct builder *b, const yaml_node_t *node, unsigned depth,
                     struct yaml_item *map)
{
    for (const yaml_node_pair_t *at = node->data.mapping.pairs.start;
         at < node->data.mapping.pairs.top; at++) {
        TRY(build_entry(b, at, depth, map));
    }
    return 0;
}

static int build_scalar(struct builder *b, const yaml_node_t *node, struct yaml_item *item)
{
    TRY(copy_text(b, node, &item->text));
    item->plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    item->kind = item->plain && is_null(item->text) ? YAML_ITEM_NULL : YAML_ITEM_SCALAR;
    return 0;
}

static int build(struct builder *b, int index, unsigned depth, struct yaml_item **out)
{
    const yaml_node_t *node = yaml_document_get_node(b->document, index);
    *out = NULL;
    if (depth > YAML_DEPTH_MAX) {
        return refuse_at(b, node->start_mark, "nested too deep (at most 16 levels)");
    }
    if (b->items_left == 0) {
        return refuse_at(b, node->start_mark, "too many values (at most 20000)");
    }
    if (!is_core_tag(node->tag)) {
        return refuse_at(b, node->start_mark, "tags (!name) are not supported");
    }
    b->items_left--;
    struct yaml_item *item = item_create(YAML_ITEM_NULL, b->source);
    item->line = (uint32_t)node->start_mark.line + 1;
    item->column = (uint32_t)node->start_mark.column + 1;
    int rc;
    if (node->type == YAML_SEQUENCE_NODE) {
        item->kind = YAML_ITEM_LIST;
        rc = build_list(b, node, depth, item);
    } else if (node->type == YAML_MAPPING_NODE) {
        item->kind = YAML_ITEM_MAP;
        rc = build_map(b, node, depth, item);
    } else {
        rc = build_scalar(b, node, item);
    }
    if (rc != 0) {
        item_destroy(item);
        return rc;
    }
    *out = item;
    return 0;
}

static int syntax_error(const yaml_parser_t *p, const char *source, struct err *err)
{
    const char *problem = p->problem != NULL ? p->problem : "cannot be read";
    if (p->error == YAML_READER_ERROR) {
        return err_set(err, ERR_INVALID, "%s: byte %zu: %s (the text must be UTF-8)", source,
                       p->problem_offset, problem);
    }
    return err_set(err, ERR_INVALID, "%s:%zu:%zu: not YAML: %s%s%s", source,
                   p->problem_mark.line + 1, p->problem_mark.column + 1, problem,
                   p->context != NULL ? ", " : "", p->context != NULL ? p->context : "");
}

/* The first and only document of the text; *out is NULL for an empty one. */
static int load_item(const char *text, size_t bytes, const char *source, struct yaml_item **out,
                     struct err *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    *out = NULL;
    if (bytes > YAML_BYTES_MAX) {
        return err_set(err, ERR_INVALID, "%s: over 1 MiB of text", source);
    }
    if (!yaml_parser_initialize(&parser)) {
        return err_set(err, ERR_NOMEM, "%s: out of memory", source);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (!yaml_parser_load(&parser, &document)) {
        int rc = syntax_error(&parser, source, err);
        yaml_parser_delete(&parser);
        return rc;
    }
    int rc = 0;
    struct builder b = {&document, source, YAML_ITEMS_MAX, YAML_BYTES_MAX, err};
    if (yaml_document_get_root_node(&document) != NULL) {
        rc = build(&b, 1, 1, out);
    }
    yaml_document_delete(&document);
    if (rc == 0 && *out != NULL) {
        if (!yaml_parser_load(&parser, &document)) {
            rc = syntax_error(&parser, source, err);
        } else {
            if (yaml_document_get_root_node(&document) != NULL) {
                rc = refuse_at(&b, document.start_mark, "a second document; only one is allowed");
            }
            yaml_document_delete(&document);
        }
    }
    yaml_parser_delete(&parser);
    if (rc != 0) {
        item_destroy(*out);
        *out = NULL;
    }
    return rc;
}

static const char *add_source(struct yaml_tree *tree, char *source)
{
    tree->sources = mem_resize(tree->sources, (tree->source_count + 1) * sizeof(char *));
    tree->sources[tree->source_count++] = source;
    return source;
}

int yaml_load(struct yaml_tree *tree, const char *text, size_t bytes, const char *name,
              struct err *err)
{
    *tree = (struct yaml_tree){0};
    const char *source = add_source(tree, mem_strdup(name));
    int rc = load_item(text, bytes, source, &tree->root, err);
    if (rc != 0) {
        yaml_fini(tree);
        return rc;
    }
    if (tree->root == NULL) {
        tree->root = item_create(YAML_ITEM_NULL, source);
        tree->root->line = tree->root->column = 1;
    }
    return 0;
}

void yaml_fini(struct yaml_tree *tree)
{
    item_destroy(tree->root);
    for (size_t i = 0; i < tree->source_count; i++) {
        free(tree->sources[i]);
    }
    free(tree->sources);
    *tree = (struct yaml_tree){0};
}

static struct yaml_item *find(const struct yaml_item *map, const char *key, size_t key_bytes)
{
    for (size_t i = 0; map->kind == YAML_ITEM_MAP && i < map->count; i++) {
        if (strncmp(map->items[i]->key, key, key_bytes) == 0 &&
            map->items[i]->key[key_bytes] == 0) {
            return map->items[i];
        }
    }
    return NULL;
}

const struct yaml_item *yaml_get(const struct yaml_item *map, const char *key)
{
    const struct yaml_item *item = find(map, key, strlen(key));
    return item != NULL && item->kind != YAML_ITEM_NULL ? item : NULL;
}

static void free_value(struct yaml_item *item)
{
    for (size_t i = 0; i < item->count; i++) {
        item_destroy(item->items[i]);
    }
    free(item->items);
    free(item->text);
    item->items = NULL;
    item->count = 0;
    item->text = NULL;
}

/* Moves the value of `from` (destroyed) into `to`, which keeps its key and place in the tree. */
static void move_value(struct yaml_item *to, struct yaml_item *from)
{
    free_value(to);
    to->kind = from->kind;
    to->plain = from->plain;
    to->text = from->text;
    to->items = from->items;
    to->count = from->count;
    for (size_t i = 0; i < to->count; i++) {
        to->items[i]->parent = to;
    }
    to->source = from->source;
    to->line = to->column = to->key_line = to->key_column = 0;
    from->text = NULL;
    from->items = NULL;
    from->count = 0;
    item_destroy(from);
}

static int override_value(const char *text, const char *source, struct yaml_item **value,
                          struct err *err)
{
    if (text[0] != 0 && strchr("[{\"'", text[0]) != NULL) {
        return load_item(text, strlen(text), source, value, err);
    }
    if (!utf8_valid(text, strlen(text))) {
        return err_set(err, ERR_INVALID, "%s: not UTF-8 text", source);
    }
    *value = item_create(is_null(text) ? YAML_ITEM_NULL : YAML_ITEM_SCALAR, source);
    (*value)->plain = true;
    (*value)->text = mem_strdup(text);
    return 0;
}

/* The item at the dotted path, made where missing. */
static int override_place(struct yaml_tree *tree, const char *source, const char *path,
                          size_t bytes, struct yaml_item **place, struct err *err)
{
    struct yaml_item *at = tree->root;
    unsigned depth = 1;
    for (const char *end = path + bytes; path <= end;) {
        size_t part = (size_t)(end - path);
        const char *dot = memchr(path, '.', part);
        part = dot != NULL ? (size_t)(dot - path) : part;
        if (part == 0) {
            return err_set(err, ERR_INVALID, "%s: an empty key (the form is a.b=value)", source);
        }
        if (at->kind == YAML_ITEM_NULL) {
            free_value(at);
            at->kind = YAML_ITEM_MAP;
        }
        if (at->kind != YAML_ITEM_MAP || ++depth > YAML_DEPTH_MAX) {
            return err_set(err, ERR_INVALID, "%s: what stands before '%.*s' is not a map", source,
                           (int)part, path);
        }
        struct yaml_item *next = find(at, path, part);
        if (next == NULL) {
            next = item_create(YAML_ITEM_NULL, source);
            next->key = mem_printf("%.*s", (int)part, path);
            item_add(at, next);
        }
        at = next;
        path += part + 1;
    }
    *place = at;
    return 0;
}

int yaml_set(struct yaml_tree *tree, const char *assignment, struct err *err)
{
    const char *source = add_source(tree, mem_printf("--set %.100s", assignment));
    const char *equals = strchr(assignment, '=');
    struct yaml_item *place = NULL;
    struct yaml_item *value = NULL;
    if (equals == NULL || equals == assignment) {
        return err_set(err, ERR_INVALID, "%s: not an override (the form is a.b=value)", source);
    }
    TRY(override_place(tree, source, assignment, (size_t)(equals - assignment), &place, err));
    TRY(override_value(equals + 1, source, &value, err));
    move_value(place, value);
    return 0;
}

static void append_path(const struct yaml_item *item, struct buf *out)
{
    if (item->parent == NULL) {
        return;
    }
    append_path(item->parent, out);
    if (item->key != NULL) {
        buf_printf(out, "%s%s", out->len > 0 ? "." : "", item->key);
        return;
    }
    size_t i = 0;
    while (item->parent->items[i] != item) {
        i++;
    }
    buf_printf(out, "[%zu]", i);
}

int yaml_refuse(const struct yaml_item *item, struct err *err, const char *fmt, ...)
{
    struct buf text = {0};
    buf_printf(&text, "%s", item->source);
    if (item->line > 0) {
        buf_printf(&text, ":%u:%u", item->line, item->column);
    }
    buf_append_str(&text, ": ");
    struct buf path = {0};
    append_path(item, &path);
    if (path.len > 0) {
        buf_printf(&text, "key '%s': ", buf_cstr(&path));
    }
    char what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    buf_append_str(&text, what);
    int rc = err_set(err, ERR_INVALID, "%s", buf_cstr(&text));
    buf_fini(&text);
    buf_fini(&path);
    return rc;
}
