/* What an export writes: every tensor of every file with its place, before a byte of it is written.
 * Pure. */
#ifndef TRAINER_HF_PLAN_H
#define TRAINER_HF_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "trainer/tensor_list.h"

enum export_dtype { EXPORT_FP32, EXPORT_BF16, EXPORT_FP8 };
enum hf_item_type { HF_ITEM_F32, HF_ITEM_BF16, HF_ITEM_FP8, HF_ITEM_SCALE };

struct hf_item {
    char name[TENSOR_NAME_BYTES + 16];
    const struct tensor *from; /* borrowed from the list */
    enum hf_item_type type;
    uint32_t rows, cols; /* of a scale: blocks */
    uint32_t file;
    uint64_t offset;       /* of its data in the file */
    struct hf_item *again; /* the next item made of the same tensor, or NULL */
};
struct hf_file {
    char name[64];     /* model-00001-of-00002.safetensors */
    struct buf header; /* owned */
    uint64_t bytes;    /* of the whole file */
};
struct hf_plan {
    struct hf_item *item; /* owned; in the order of the model */
    size_t count;
    struct hf_item **first; /* owned; of each tensor of the list: its items */
    struct hf_file *file;   /* owned */
    uint32_t file_count;
    uint64_t data_bytes; /* of all files, without headers */
    uint64_t parameters; /* elements of all items but scales */
};

/* Embedding and head are repeated in each MTP layer, as in the released weights. A file is closed
 * when the next tensor (with its scale) would make its data longer than shard_bytes. */
void hf_plan_init(struct hf_plan *p, const struct tensor_list *tensors,
                  const struct model_config *config, enum export_dtype dtype, uint64_t shard_bytes);
void hf_plan_fini(struct hf_plan *p);
/* model.safetensors.index.json. */
void hf_plan_index(const struct hf_plan *p, struct buf *out);

uint32_t hf_item_bytes(enum hf_item_type type); /* of one element */

#endif
