#include "trainer/hf_index.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/json_error.h"

#define SUFFIX ".safetensors"

static bool is_file_name(const char *s)
{
    size_t len = strlen(s);
    size_t suffix = strlen(SUFFIX);
    if (len <= suffix || len > 200 || s[0] == '.' || strcmp(s + len - suffix, SUFFIX) != 0) {
        return false;
    }
    for (const unsigned char *p = (const unsigned char *)s; *p != 0; p++) {
        if (*p == '/' || *p < 0x20 || *p == 0x7f) {
            return false;
        }
    }
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const struct hf_index_entry *)a)->tensor,
                  ((const struct hf_index_entry *)b)->tensor);
}

/* The names of the files, sorted, each once. */
static void collect_files(struct hf_index *x, json_t *map)
{
    const char *key;
    json_t *value;
    const char **names = mem_alloc_array(json_object_size(map), sizeof *names);
    size_t n = 0;
    json_object_foreach(map, key, value)
    {
        names[n++] = json_string_value(value);
    }
    qsort(names, n, sizeof *names, by_text);
    x->file = mem_alloc_array(n, sizeof *x->file);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(names[i - 1], names[i]) != 0) {
            x->file[x->file_count++] = mem_strdup(names[i]);
        }
    }
    free(names);
}

static int check_map(json_t *map, const char *name, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const char *file = json_string_value(value);
        if (file == NULL || !is_file_name(file)) {
            return err_set(err, ERR_CORRUPT,
                           "%s: tensor %.120s: '%.100s' is not the name of a .safetensors file in "
                           "this folder",
                           name, key, file != NULL ? file : "");
        }
    }
    return 0;
}

int hf_index_parse(struct hf_index *x, const char *json, size_t bytes, const char *name,
                   struct err *err)
{
    json_error_t where;
    *x = (struct hf_index){0};
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL) {
        char why[256];
        json_error_text(why, sizeof why, &where, json);
        return err_set(err, ERR_CORRUPT, "%s:%d: not an index: %s", name, where.line, why);
    }
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        json_decref(root);
        return err_set(err, ERR_CORRUPT, "%s: weight_map is missing, empty, or no object", name);
    }
    int rc = check_map(map, name, err);
    if (rc == 0) {
        const char *key;
        json_t *value;
        collect_files(x, map);
        x->entry = mem_alloc_array(json_object_size(map), sizeof *x->entry);
        json_object_foreach(map, key, value)
        {
            const char *file = json_string_value(value);
            char *const *found = bsearch(&file, x->file, x->file_count, sizeof *x->file, by_text);
            x->entry[x->count++] = (struct hf_index_entry){mem_strdup(key), *found};
        }
        qsort(x->entry, x->count, sizeof *x->entry, by_tensor);
    }
    json_decref(root);
    return rc;
}

void hf_index_fini(struct hf_index *x)
{
    for (size_t i = 0; i < x->count; i++) {
        free(x->entry[i].tensor);
    }
    for (size_t i = 0; i < x->file_count; i++) {
        free(x->file[i]);
    }
    free(x->entry);
    free(x->file);
    *x = (struct hf_index){0};
}
