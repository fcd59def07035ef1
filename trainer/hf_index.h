/* model.safetensors.index.json of a Hugging Face folder: which file holds which tensor. Pure: reads
 * no file. */
#ifndef TRAINER_HF_INDEX_H
#define TRAINER_HF_INDEX_H

#include <stddef.h>

#include "lib/err.h"

#define HF_INDEX_FILE      "model.safetensors.index.json"
#define HF_INDEX_BYTES_MAX (256u << 20)

struct hf_index_entry {
    char *tensor;     /* owned */
    const char *file; /* one of hf_index.file */
};
struct hf_index {
    struct hf_index_entry *entry; /* owned; by tensor name */
    size_t count;
    char **file; /* owned; each once, by name */
    size_t file_count;
};

/* ERR_CORRUPT, with the tensor's name where it is about one: named twice, or a file that is not a
 * plain *.safetensors name in the same folder. name: for messages. */
int hf_index_parse(struct hf_index *x, const char *json, size_t bytes, const char *name,
                   struct err *err);
void hf_index_fini(struct hf_index *x); /* a zeroed one is fine */

#endif
