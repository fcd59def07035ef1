/* The safetensors format (huggingface/safetensors, README "Format"): u64 little-endian length of
 * the header, the header (a JSON object: name
 * -> {dtype, shape, data_offsets}, and "__metadata__" -> strings), the data. Any dtype is
 * understood, so that a file can be listed; what is in the bytes is for the caller to know. */
#ifndef TRAINER_SAFETENSORS_H
#define TRAINER_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define SAFETENSORS_DIMENSIONS 8
#define SAFETENSORS_HEADER_MAX (100u << 20) /* as the reference implementation has it */

struct safetensors_tensor {
    char *name; /* owned */
    char dtype[8];
    uint32_t dimensions;
    uint64_t shape[SAFETENSORS_DIMENSIONS];
    uint64_t begin, end; /* bytes, from the start of the data */
};

/* A file open for reading. */
struct safetensors {
    char *path; /* owned */
    int fd;
    uint64_t file_bytes, data_start;
    size_t count;
    struct safetensors_tensor *tensors; /* owned; by name */
    char *metadata;                     /* owned; JSON object of strings, "{}" when there is none */
};

/* Opens and checks everything but the data itself: lengths, types, and that the tensors cover the
 * data without gap or overlap. ERR_CORRUPT names the file and the tensor. */
int safetensors_open(struct safetensors *s, const char *path, struct err *err);
void safetensors_close(struct safetensors *s); /* a zeroed one is fine */
/* The same check on a header in memory; name is for messages. Fills tensors, count and metadata. */
int safetensors_check_header(struct safetensors *s, const char *json, size_t bytes,
                             uint64_t data_bytes, const char *name, struct err *err);

/* NULL when there is none of that name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name);
/* Whole tensor of dtype F32 with exactly `count` elements, into out. */
int safetensors_read_f32(const struct safetensors *s, const struct safetensors_tensor *t,
                         float *out, size_t count, struct err *err);
/* Bytes [from, from + bytes) of a tensor, or of the whole file. */
int safetensors_read_part(const struct safetensors *s, const struct safetensors_tensor *t,
                          uint64_t from, void *out, size_t bytes, struct err *err);
int safetensors_read_at(const struct safetensors *s, uint64_t at, void *out, size_t bytes,
                        struct err *err);
/* "[3, 4]", cut to bytes. */
void safetensors_shape_text(char *text, size_t bytes, uint32_t dimensions, const uint64_t *shape);
/* Bytes of one element; 0 for an unknown dtype. */
uint32_t safetensors_dtype_bytes(const char *dtype);

/* What a new file shall hold, in the order of the data. */
struct safetensors_item {
    const char *name; /* borrowed */
    uint32_t rows, cols;
    int is_vector;     /* shape [rows] instead of [rows, cols] */
    const char *dtype; /* borrowed; NULL: F32 */
};
struct safetensors_metadata {
    const char *key, *value; /* borrowed */
};
/* Appends length and header to *out; the data of the items follows it without padding in between.
 */
void safetensors_write_header(struct buf *out, const struct safetensors_item *items, size_t count,
                              const struct safetensors_metadata *metadata, size_t metadata_count);

#endif
