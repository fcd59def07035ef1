/* For tests against vectors that others computed (tests/reference): a folder of safetensors files,
 * each one case (its metadata's `facts` is a JSON object of strings), and a line for each thing
 * compared that reference.py makes a table of. DS_VECTORS names another folder than the tree's. */
#ifndef TESTS_UNIT_TRAINER_REFERENCE_H
#define TESTS_UNIT_TRAINER_REFERENCE_H

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/mem.h"
#include "trainer/safetensors.h"

struct vectors {
    char name[64]; /* of the case */
    struct safetensors file;
    json_t *facts;
    bool failed;
};

static inline void vectors_open(struct vectors *v, const char *path)
{
    struct err err = {0};
    *v = (struct vectors){0};
    if (safetensors_open(&v->file, path, &err) != 0) {
        fail_msg("%s", err.text);
    }
    const char *slash = strrchr(path, '/');
    snprintf(v->name, sizeof v->name, "%.*s", (int)strcspn(slash + 1, "."), slash + 1);
    json_t *metadata = json_loads(v->file.metadata, 0, NULL);
    const char *facts = json_string_value(json_object_get(metadata, "facts"));
    v->facts = json_loads(facts != NULL ? facts : "{}", 0, NULL);
    json_decref(metadata);
}

static inline void vectors_close(struct vectors *v)
{
    json_decref(v->facts);
    safetensors_close(&v->file);
}

/* The error of one thing; 0 allows no difference. `on`: where it was worst. */
static inline void vectors_note(struct vectors *v, const char *what, double error, double tolerance,
                                const char *on)
{
    printf("reference: %s | %s | %.9g | %.9g | %s\n", v->name, what, error, tolerance, on);
    fflush(stdout);
    v->failed |= !(error <= tolerance);
}

static inline const char *vectors_text(const struct vectors *v, const char *key)
{
    const char *text = json_string_value(json_object_get(v->facts, key));
    if (text == NULL) {
        fail_msg("%s: the vectors lack '%s'", v->name, key);
    }
    return text;
}

static inline double vectors_fact(const struct vectors *v, const char *key)
{
    return strtod(vectors_text(v, key), NULL);
}

static inline const struct safetensors_tensor *vectors_find(const struct vectors *v,
                                                            const char *name)
{
    const struct safetensors_tensor *t = safetensors_find(&v->file, name);
    if (t == NULL) {
        fail_msg("%s: the vectors lack the tensor %s", v->name, name);
    }
    return t;
}

static inline size_t vectors_dimension(const struct vectors *v, const char *name, uint32_t i)
{
    const struct safetensors_tensor *t = vectors_find(v, name);
    assert_true(i < t->dimensions);
    return (size_t)t->shape[i];
}

/* A whole tensor of elements of that size; the caller frees. */
static inline void *vectors_bytes(const struct vectors *v, const char *name, size_t count,
                                  size_t element)
{
    struct err err = {0};
    const struct safetensors_tensor *t = vectors_find(v, name);
    if (t->end - t->begin != count * element) {
        fail_msg("%s: %s has %llu bytes, %zu are expected", v->name, name,
                 (unsigned long long)(t->end - t->begin), count * element);
    }
    void *data = mem_alloc_array(count > 0 ? count : 1, element);
    if (safetensors_read_part(&v->file, t, 0, data, count * element, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return data;
}

static inline float *vectors_floats(const struct vectors *v, const char *name, size_t count)
{
    assert_string_equal(vectors_find(v, name)->dtype, "F32");
    return vectors_bytes(v, name, count, sizeof(float));
}

/* Runs check on every file of the subject's folder, and fails when one of them differed. */
static inline void vectors_each(const char *subject, void (*check)(struct vectors *v))
{
    char folder[4096], path[8192];
    const char *root = getenv("DS_VECTORS");
    snprintf(folder, sizeof folder, "%s/%s", root != NULL ? root : "tests/reference/vectors",
             subject);
    struct dirent **entries = NULL;
    int found = scandir(folder, &entries, NULL, alphasort);
    int checked = 0, failed = 0;
    for (int i = 0; i < found; i++) {
        if (strstr(entries[i]->d_name, ".safetensors") != NULL) {
            struct vectors v;
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
            vectors_open(&v, path);
            check(&v);
            failed += v.failed;
            vectors_close(&v);
            checked++;
        }
        free(entries[i]);
    }
    free(entries);
    if (checked == 0 || failed > 0) {
        fail_msg("%s: %d of %d cases differ by more than allowed", folder, failed, checked);
    }
}

#endif
