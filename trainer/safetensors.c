#include "trainer/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"
#include "trainer/json_error.h"

uint32_t safetensors_dtype_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        uint32_t bytes;
    } known[] = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
        {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
        {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, dtype) == 0) {
            return known[i].bytes;
        }
    }
    return 0;
}

/* One entry of the header. */
static int parse_tensor(struct safetensors_tensor *t, const char *key, const json_t *value,
                        uint64_t data_bytes, const char *file, struct err *err)
{
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (dtype == NULL || !json_is_array(shape) || !json_is_array(offsets) ||
        json_array_size(offsets) != 2 || !json_is_integer(json_array_get(offsets, 0)) ||
        !json_is_integer(json_array_get(offsets, 1))) {
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s: dtype, shape or data_offsets is missing or malformed", file,
                       key);
    }
    uint32_t item_bytes = safetensors_dtype_bytes(dtype);
    if (item_bytes == 0) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s: unknown dtype %.16s", file, key, dtype);
    }
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
    if (json_array_size(shape) > SAFETENSORS_DIMENSIONS) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has %zu dimensions, at most %d are known",
                       file, key, json_array_size(shape), SAFETENSORS_DIMENSIONS);
    }
    t->dimensions = (uint32_t)json_array_size(shape);
    uint64_t bytes = item_bytes;
    for (uint32_t i = 0; i < t->dimensions; i++) {
        const json_t *n = json_array_get(shape, i);
        if (!json_is_integer(n) || json_integer_value(n) < 0) {
            return err_set(err, ERR_CORRUPT, "%s: tensor %s: shape is no list of sizes", file, key);
        }
        t->shape[i] = (uint64_t)json_integer_value(n);
        if (__builtin_mul_overflow(bytes, t->shape[i], &bytes)) {
            return err_set(err, ERR_CORRUPT, "%s: tensor %s: its shape overflows", file, key);
        }
    }
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes) {
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s: offsets %" JSON_INTEGER_FORMAT "..%" JSON_INTEGER_FORMAT
                       " are outside the %" PRIu64 " bytes of data (truncated?)",
                       file, key, begin, end, data_bytes);
    }
    if ((uint64_t)(end - begin) != bytes) {
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s: its shape takes %" PRIu64
                       " bytes, its offsets give it %" JSON_INTEGER_FORMAT,
                       file, key, bytes, end - begin);
    }
    t->begin = (uint64_t)begin;
    t->end = (uint64_t)end;
    t->name = mem_strdup(key);
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a;
    const struct safetensors_tensor *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_tensor *)a)->name,
                  ((const struct safetensors_tensor *)b)->name);
}

/* The tensors lie one after the other and fill the data. */
static int check_cover(struct safetensors *s, uint64_t data_bytes, const char *file,
                       struct err *err)
{
    qsort(s->tensors, s->count, sizeof *s->tensors, by_place);
    uint64_t end = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct safetensors_tensor *t = &s->tensors[i];
        if (t->begin != end) {
            return err_set(err, ERR_CORRUPT,
                           "%s: tensor %s begins at byte %" PRIu64
                           " of the data, %s%s ends at %" PRIu64,
                           file, t->name, t->begin, i > 0 ? "the one before, " : "the header",
                           i > 0 ? s->tensors[i - 1].name : "", end);
        }
        end = t->end;
    }
    if (end != data_bytes) {
        return err_set(err, ERR_CORRUPT,
                       "%s: the tensors cover %" PRIu64 " of %" PRIu64 " bytes of data", file, end,
                       data_bytes);
    }
    qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
    return 0;
}

static int parse_metadata(struct safetensors *s, json_t *value, const char *file, struct err *err)
{
    const char *key;
    json_t *text;
    bool good = json_is_object(value);
    json_object_foreach(value, key, text)
    {
        good = good && json_is_string(text);
    }
    if (!good) {
        return err_set(err, ERR_CORRUPT, "%s: __metadata__ is no object of strings", file);
    }
    free(s->metadata);
    s->metadata = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    return 0;
}

int safetensors_check_header(struct safetensors *s, const char *json, size_t bytes,
                             uint64_t data_bytes, const char *name, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root)) {
        char why[256] = "it is something else";
        if (root == NULL) {
            json_error_text(why, sizeof why, &where, json);
        }
        json_decref(root);
        return err_set(err, ERR_CORRUPT, "%s: the header is no JSON object: %s", name, why);
    }
    s->tensors = mem_alloc_array(json_object_size(root), sizeof *s->tensors);
    s->metadata = mem_strdup("{}");
    int rc = 0;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            rc = parse_metadata(s, value, name, err);
        } else {
            rc = parse_tensor(&s->tensors[s->count], key, value, data_bytes, name, err);
            s->count += rc == 0;
        }
        if (rc != 0) {
            break;
        }
    }
    json_decref(root);
    return rc == 0 ? check_cover(s, data_bytes, name, err) : rc;
}

int safetensors_read_at(const struct safetensors *s, uint64_t at, void *out, size_t bytes,
                        struct err *err)
{
    uint8_t *p = out;
    while (bytes > 0) {
        ssize_t got = pread(s->fd, p, bytes, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_set_errno(err, "cannot read %s", s->path);
        }
        if (got == 0) {
            return err_set(err, ERR_CORRUPT, "%s is truncated: it ends at byte %" PRIu64, s->path,
                           at);
        }
        p += got;
        at += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return 0;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *err)
{
    *s = (struct safetensors){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (s->fd < 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    s->path = mem_strdup(path);
    char *header = NULL;
    struct stat st;
    uint64_t header_bytes = 0;
    int rc = 0;
    if (fstat(s->fd, &st) != 0) {
        rc = err_set_errno(err, "cannot stat %s", path);
        goto out;
    }
    s->file_bytes = (uint64_t)st.st_size;
    TRY_GOTO(safetensors_read_at(s, 0, &header_bytes, sizeof header_bytes, err), out);
    if (header_bytes > SAFETENSORS_HEADER_MAX || header_bytes > s->file_bytes - 8) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s: a header of %" PRIu64 " bytes does not fit into a file of %" PRIu64
                     " (truncated, or no safetensors)",
                     path, header_bytes, s->file_bytes);
        goto out;
    }
    s->data_start = 8 + header_bytes;
    header = mem_alloc((size_t)header_bytes);
    TRY_GOTO(safetensors_read_at(s, 8, header, (size_t)header_bytes, err), out);
    rc = safetensors_check_header(s, header, (size_t)header_bytes, s->file_bytes - s->data_start,
                                  path, err);
out:
    free(header);
    if (rc != 0) {
        safetensors_close(s);
    }
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (s->path != NULL) {
        close(s->fd);
    }
    for (size_t i = 0; i < s->count; i++) {
        free(s->tensors[i].name);
    }
    free(s->tensors);
    free(s->metadata);
    free(s->path);
    *s = (struct safetensors){.fd = -1};
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    size_t low = 0;
    size_t high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(name, s->tensors[mid].name);
        if (order == 0) {
            return &s->tensors[mid];
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

int safetensors_read_f32(const struct safetensors *s, const struct safetensors_tensor *t,
                         float *out, size_t count, struct err *err)
{
    assert(strcmp(t->dtype, "F32") == 0 && t->end - t->begin == count * sizeof *out);
    return safetensors_read_at(s, s->data_start + t->begin, out, count * sizeof *out, err);
}

int safetensors_read_part(const struct safetensors *s, const struct safetensors_tensor *t,
                          uint64_t from, void *out, size_t bytes, struct err *err)
{
    assert(from <= t->end - t->begin && bytes <= t->end - t->begin - from);
    return safetensors_read_at(s, s->data_start + t->begin + from, out, bytes, err);
}

void safetensors_shape_text(char *text, size_t bytes, uint32_t dimensions, const uint64_t *shape)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (uint32_t i = 0; i < dimensions && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%llu", i > 0 ? ", " : "",
                                 (unsigned long long)shape[i]);
    }
    if (used < bytes) {
        snprintf(text + used, bytes - used, "]");
    }
}

void safetensors_write_header(struct buf *out, const struct safetensors_item *items, size_t count,
                              const struct safetensors_metadata *metadata, size_t metadata_count)
{
    json_t *root = json_object();
    json_t *meta = json_object();
    for (size_t i = 0; i < metadata_count; i++) {
        json_object_set_new(meta, metadata[i].key, json_string(metadata[i].value));
    }
    json_object_set_new(root, "__metadata__", meta);
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_item *item = &items[i];
        const char *dtype = item->dtype != NULL ? item->dtype : "F32";
        uint64_t elements = item->is_vector ? item->rows : (uint64_t)item->rows * item->cols;
        uint64_t end = at + elements * safetensors_dtype_bytes(dtype);
        json_t *shape = item->is_vector
                            ? json_pack("[I]", (json_int_t)item->rows)
                            : json_pack("[I,I]", (json_int_t)item->rows, (json_int_t)item->cols);
        json_object_set_new(root, item->name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    assert(json_object_size(root) == count + 1); /* names are distinct and valid UTF-8 */
    char *text = json_dumps(root, JSON_COMPACT);
    assert(text != NULL);
    json_decref(root);
    uint64_t len = strlen(text);
    uint64_t padded =
        (len + 7) / 8 * 8; /* so that the data is aligned; the format pads with spaces */
    buf_append(out, &padded, sizeof padded);
    buf_append(out, text, len);
    buf_append(out, "       ", padded - len);
    free(text);
}
