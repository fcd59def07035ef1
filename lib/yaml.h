/* YAML text as a tree that knows where each value stood, and tables that read such a tree into
 * structs. Every message reads file:line:column: key 'a.b': what is wrong (allowed: ...) Bounded,
 * because the text may come from anyone: YAML_BYTES_MAX of text, and as much again after aliases
 * are expanded, YAML_ITEMS_MAX values, YAML_DEPTH_MAX levels. Duplicate keys, custom tags and
 * several documents are refused. */
#ifndef LIB_YAML_H
#define LIB_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define YAML_BYTES_MAX (1024u * 1024u)
#define YAML_ITEMS_MAX 20000u
#define YAML_MAP_MAX   1000u
#define YAML_DEPTH_MAX 16u

enum yaml_item_kind { YAML_ITEM_NULL, YAML_ITEM_SCALAR, YAML_ITEM_LIST, YAML_ITEM_MAP };

struct yaml_item {
    enum yaml_item_kind kind;
    bool plain;               /* a scalar without quotes: may be a number or a bool */
    char *text;               /* owned; of a scalar */
    char *key;                /* owned; of a map's entry, else NULL */
    struct yaml_item **items; /* owned; of a list or map, in the order of the text */
    size_t count;
    const struct yaml_item *parent; /* borrowed; NULL: the root */
    const char *source;    /* borrowed from the tree: the file name, or the override that set it */
    uint32_t line, column; /* from 1; 0 when an override set it */
    uint32_t key_line, key_column;
};

struct yaml_tree {
    struct yaml_item *root; /* owned */
    char **sources;         /* owned */
    size_t source_count;
};

/* On failure the tree is empty. ERR_INVALID. */
int yaml_load(struct yaml_tree *tree, const char *text, size_t bytes, const char *name,
              struct err *err);
void yaml_fini(struct yaml_tree *tree); /* a zeroed one is fine */
/* assignment: a.b=value; maps that are missing are made. A value that begins with [ { " or ' is
 * YAML, any other is taken as it stands. */
int yaml_set(struct yaml_tree *tree, const char *assignment, struct err *err);

/* The entry of a map; NULL when there is none or its value is null. */
const struct yaml_item *yaml_get(const struct yaml_item *map, const char *key);
/* Sets *err with the place and the dotted key in front; returns ERR_INVALID. */
int yaml_refuse(const struct yaml_item *item, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Scalars. The number forms are JSON's, exact and in range or refused. */
int yaml_to_bool(const struct yaml_item *item, bool *value, struct err *err);
int yaml_to_i64(const struct yaml_item *item, int64_t low, int64_t high, int64_t *value,
                struct err *err);
int yaml_to_u64(const struct yaml_item *item, uint64_t low, uint64_t high, uint64_t *value,
                struct err *err);
int yaml_to_double(const struct yaml_item *item, double *value, struct err *err); /* finite */

/* ---- tables */
enum yaml_type {
    YAML_TEXT,   /* char *, owned by the object; an earlier value is freed */
    YAML_BOOL,   /* bool */
    YAML_U32,    /* uint32_t, low..high */
    YAML_U64,    /* uint64_t, low..high */
    YAML_I64,    /* int64_t, low..high */
    YAML_DOUBLE, /* double, min..max */
    YAML_CHOICE, /* an enum: the index in choices, stored as int */
    YAML_MAP,    /* a struct at offset, read by fields */
    YAML_CUSTOM, /* read() gets the item and the object's address plus offset */
};
struct yaml_field {
    const char *key; /* NULL ends a table */
    enum yaml_type type;
    size_t offset;
    bool required;
    int64_t low;
    uint64_t high;
    double min, max;
    const char *const *choices; /* NULL-terminated */
    const struct yaml_field *fields;
    int (*read)(const struct yaml_item *item, void *place, struct err *err);
    bool (*valid)(const char *text); /* YAML_TEXT: NULL takes any text but the empty one */
    const char *allowed;             /* for messages of YAML_TEXT */
};
/* Fields whose key is absent or null keep their value. Unknown keys are refused with the nearest
 * known one. */
int yaml_read(const struct yaml_item *map, const struct yaml_field *fields, void *object,
              struct err *err);
/* For files that others define and extend: unknown keys are ignored, but for a slip of one letter
 * from a known key that is absent.
 */
int yaml_read_open(const struct yaml_item *map, const struct yaml_field *fields, void *object,
                   struct err *err);

#endif
