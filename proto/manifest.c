/* The text of a manifest. What touches files is in manifest_file.c. */
#include "proto/manifest.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf_json.h"
#include "lib/mem.h"

#define SCHEMA           "ds/manifest/v1"
#define LAYOUT_BYTES_MAX 65536u
#define LAYOUT_FORM      (JSON_COMPACT | JSON_SORT_KEYS)

void manifest_fini(struct manifest *m)
{
    free(m->layout);
    free(m->shards);
    *m = (struct manifest){0};
}

void manifest_encode(const struct manifest *m, struct buf *out)
{
    buf_printf(out, "{\"schema\":\"" SCHEMA "\",\"job\":%" PRIu64 ",\"epoch\":%" PRIu64, m->job,
               m->epoch);
    buf_printf(out, ",\"step\":%" PRIu64 ",\"world_size\":%" PRIu32 ",\"layout\":%s,\"shards\":[",
               m->step, m->world_size, m->layout);
    for (uint32_t i = 0; i < m->world_size; i++) {
        const struct manifest_shard *s = &m->shards[i];
        buf_printf(out, "%s{\"rank\":%" PRIu32 ",\"file\":", i > 0 ? "," : "", s->rank);
        buf_json_text(out, s->file);
        buf_printf(out, ",\"bytes\":%" PRIu64 ",\"xxh3\":\"%s\",\"sha256\":\"%s\"}", s->bytes,
                   s->xxh3, s->sha256);
    }
    buf_append_str(out, "]}");
}

int manifest_layout(const char *text, char **canonical, struct err *err)
{
    json_error_t at;
    *canonical = NULL;
    if (strlen(text) > LAYOUT_BYTES_MAX) {
        return err_set(err, ERR_INVALID, "layout over %u bytes", LAYOUT_BYTES_MAX);
    }
    json_t *layout = json_loads(text, JSON_REJECT_DUPLICATES, &at);
    if (!json_is_object(layout)) {
        json_decref(layout);
        return err_set(err, ERR_INVALID, "layout is not a JSON object: %s",
                       layout == NULL ? at.text : "something else");
    }
    char *dumped = json_dumps(layout, LAYOUT_FORM);
    json_decref(layout);
    *canonical = mem_strdup(dumped);
    free(dumped);
    return 0;
}

static bool is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

int manifest_check_shard(const struct manifest_shard *s, struct err *err)
{
    size_t len = strnlen(s->file, sizeof s->file);
    if (len == 0 || len == sizeof s->file || strchr(s->file, '/') != NULL || s->file[0] == '.') {
        return err_set(err, ERR_INVALID,
                       "shard of rank %" PRIu32
                       ": '%.100s' is not a file name (allowed: no '/', no "
                       "'.' in front, at most 127 bytes)",
                       s->rank, s->file);
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s->file[i] < 0x20 || s->file[i] == 0x7f) {
            return err_set(err, ERR_INVALID,
                           "shard of rank %" PRIu32 ": control byte in its file name", s->rank);
        }
    }
    if (!is_hex(s->xxh3, 32) || !is_hex(s->sha256, 64)) {
        return err_set(err, ERR_INVALID,
                       "shard of rank %" PRIu32 ": a digest is not %s lower-case hex digits",
                       s->rank, is_hex(s->xxh3, 32) ? "64" : "32");
    }
    return 0;
}

/* ---- parsing: exact keys, so that a manifest of a later schema is never half understood */
static int corrupt(struct err *err, const char *name, const char *what)
{
    return err_set(err, ERR_CORRUPT, "%s: not a manifest: %s", name, what);
}

static bool get_u64(const json_t *object, const char *key, uint64_t max, uint64_t *value)
{
    const json_t *item = json_object_get(object, key);
    if (!json_is_integer(item) || json_integer_value(item) < 0 ||
        (uint64_t)json_integer_value(item) > max) {
        return false;
    }
    *value = (uint64_t)json_integer_value(item);
    return true;
}

static bool get_text(const json_t *object, const char *key, char *text, size_t text_bytes)
{
    const json_t *item = json_object_get(object, key);
    if (!json_is_string(item) || json_string_length(item) >= text_bytes) {
        return false;
    }
    memcpy(text, json_string_value(item), json_string_length(item) + 1);
    return true;
}

static int parse_shard(const json_t *object, uint32_t index, struct manifest_shard *s,
                       const char *name, struct err *err)
{
    uint64_t rank;
    struct err why;
    if (json_object_size(object) != 5 || !get_u64(object, "rank", UINT32_MAX, &rank) ||
        !get_text(object, "file", s->file, sizeof s->file) ||
        !get_u64(object, "bytes", INT64_MAX, &s->bytes) ||
        !get_text(object, "xxh3", s->xxh3, sizeof s->xxh3) ||
        !get_text(object, "sha256", s->sha256, sizeof s->sha256)) {
        return corrupt(err, name, "a shard has other keys than rank, file, bytes, xxh3, sha256");
    }
    s->rank = (uint32_t)rank;
    if (rank != index) {
        return corrupt(err, name, "the shards are not those of rank 0, 1, 2 ...");
    }
    return manifest_check_shard(s, &why) == 0 ? 0 : corrupt(err, name, why.text);
}

static int parse_shards(struct manifest *m, const json_t *list, const char *name, struct err *err)
{
    if (!json_is_array(list) || json_array_size(list) != m->world_size) {
        return corrupt(err, name, "not one shard for each rank of world_size");
    }
    m->shards = mem_alloc_array(m->world_size, sizeof *m->shards);
    for (uint32_t i = 0; i < m->world_size; i++) {
        TRY(parse_shard(json_array_get(list, i), i, &m->shards[i], name, err));
    }
    return 0;
}

static int parse_object(struct manifest *m, const json_t *root, const char *name, struct err *err)
{
    char schema[64];
    uint64_t world;
    if (!get_text(root, "schema", schema, sizeof schema) || strcmp(schema, SCHEMA) != 0) {
        return corrupt(err, name, "its schema is not " SCHEMA " (written by another version?)");
    }
    const json_t *layout = json_object_get(root, "layout");
    if (json_object_size(root) != 7 || !get_u64(root, "job", INT64_MAX, &m->job) ||
        !get_u64(root, "epoch", INT64_MAX, &m->epoch) ||
        !get_u64(root, "step", INT64_MAX, &m->step) ||
        !get_u64(root, "world_size", UINT32_MAX, &world) || !json_is_object(layout)) {
        return corrupt(err, name,
                       "other keys than schema, job, epoch, step, world_size, layout, shards");
    }
    m->world_size = (uint32_t)world;
    char *dumped = json_dumps(layout, LAYOUT_FORM);
    m->layout = mem_strdup(dumped);
    free(dumped);
    return parse_shards(m, json_object_get(root, "shards"), name, err);
}

int manifest_parse(struct manifest *m, const char *text, size_t len, const char *name,
                   struct err *err)
{
    json_error_t at;
    *m = (struct manifest){0};
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    if (root == NULL) {
        return err_set(err, ERR_CORRUPT, "%s:%d: not a manifest: %s (cut short?)", name, at.line,
                       at.text);
    }
    int rc = parse_object(m, root, name, err);
    json_decref(root);
    if (rc != 0) {
        manifest_fini(m);
    }
    return rc;
}

void manifest_digest_text(const void *data, size_t len, char sha256[65])
{
    unsigned char digest[32];
    if (EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL) != 1) {
        abort(); /* only for lack of memory */
    }
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(sha256 + 2 * i, 3, "%02x", digest[i]);
    }
}
