/* What is which type, as in the released weights: the Linears of the recipe are FP8 with a scale
 * for each block, the balancing bias is FP32, all else BF16. In a file the items lie by the size of
 * their elements, large ones first, so that each is aligned to it: readers map files into memory.
 */
#include "trainer/hf_plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf_json.h"
#include "lib/mem.h"
#include "trainer/fp8.h"
#include "trainer/hf_folder.h"
#include "trainer/safetensors.h"

uint32_t hf_item_bytes(enum hf_item_type type)
{
    return type == HF_ITEM_FP8 ? 1 : type == HF_ITEM_BF16 ? 2 : 4;
}

static const char *dtype_name(enum hf_item_type type)
{
    return type == HF_ITEM_FP8 ? "F8_E4M3" : type == HF_ITEM_BF16 ? "BF16" : "F32";
}

static uint64_t bytes_of(const struct hf_item *i)
{
    return (uint64_t)i->rows * i->cols * hf_item_bytes(i->type);
}

static enum hf_item_type type_of(const struct tensor *t, enum export_dtype dtype)
{
    if (dtype == EXPORT_FP32 || t->kind == TENSOR_BIAS) {
        return HF_ITEM_F32;
    }
    return dtype == EXPORT_FP8 && t->kind == TENSOR_RECIPE ? HF_ITEM_FP8 : HF_ITEM_BF16;
}

/* ---- the items */

struct planner {
    struct hf_plan *plan;
    const struct tensor_list *tensors;
    enum export_dtype dtype;
};

static void add(struct planner *p, const struct tensor *t, const char *name, enum hf_item_type type,
                uint32_t rows, uint32_t cols)
{
    struct hf_plan *plan = p->plan;
    struct hf_item *i = &plan->item[plan->count++];
    *i = (struct hf_item){.from = t, .type = type, .rows = rows, .cols = cols};
    int n = snprintf(i->name, sizeof i->name, "%s%s", name,
                     type == HF_ITEM_SCALE ? HF_SCALE_SUFFIX : "");
    assert(n > 0 && (size_t)n < sizeof i->name);
    struct hf_item **end = &plan->first[t - p->tensors->item];
    while (*end != NULL) {
        end = &(*end)->again;
    }
    *end = i;
    plan->parameters += type == HF_ITEM_SCALE ? 0 : (uint64_t)rows * cols;
    plan->data_bytes += bytes_of(i);
}

static void add_tensor(struct planner *p, const struct tensor *t, const char *name)
{
    enum hf_item_type type = type_of(t, p->dtype);
    add(p, t, name, type, t->rows, t->cols);
    if (type == HF_ITEM_FP8) {
        add(p, t, name, HF_ITEM_SCALE, (t->rows + FP8_TILE - 1) / FP8_TILE,
            (t->cols + FP8_TILE - 1) / FP8_TILE);
    }
}

static void add_copy(struct planner *p, int32_t layer, const char *what, const char *original)
{
    char name[TENSOR_NAME_BYTES];
    snprintf(name, sizeof name, "model.layers.%d.%s", layer, what);
    add_tensor(p, tensor_list_find(p->tensors, original), name);
}

static void add_items(struct planner *p, const struct model_config *c)
{
    const char *head = c->tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    int32_t before = -1;
    for (size_t i = 0; i < p->tensors->count; i++) {
        const struct tensor *t = &p->tensors->item[i];
        if (t->layer != before && t->layer >= (int32_t)c->num_hidden_layers) {
            add_copy(p, t->layer, "embed_tokens.weight", "model.embed_tokens.weight");
            add_copy(p, t->layer, "shared_head.head.weight", head);
        }
        before = t->layer;
        add_tensor(p, t, t->name);
    }
}

/* ---- the files */

/* The first item of the file after the one that begins at `first`. A scale stays with what it
 * scales. */
static size_t file_end(const struct hf_plan *p, size_t first, uint64_t shard_bytes)
{
    uint64_t bytes = 0;
    size_t i = first;
    while (i < p->count) {
        size_t next = i + 1;
        uint64_t more = bytes_of(&p->item[i]);
        if (next < p->count && p->item[next].type == HF_ITEM_SCALE) {
            more += bytes_of(&p->item[next++]);
        }
        if (i > first && bytes + more > shard_bytes) {
            break;
        }
        bytes += more;
        i = next;
    }
    return i;
}

static void lay_out(struct hf_plan *p, uint32_t file, size_t first, size_t end)
{
    static const uint32_t sizes[] = {4, 2, 1};
    struct hf_file *f = &p->file[file];
    struct safetensors_item *items = mem_alloc_array(end - first, sizeof *items);
    size_t n = 0;
    uint64_t at = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t k = first; k < end; k++) {
            struct hf_item *i = &p->item[k];
            if (hf_item_bytes(i->type) == sizes[s]) {
                i->file = file;
                i->offset = at;
                at += bytes_of(i);
                items[n++] = (struct safetensors_item){i->name, i->rows, i->cols,
                                                       i->from->is_vector, dtype_name(i->type)};
            }
        }
    }
    const struct safetensors_metadata metadata = {"format", "pt"}; /* what transformers asks for */
    safetensors_write_header(&f->header, items, n, &metadata, 1);
    free(items);
    for (size_t k = first; k < end; k++) {
        p->item[k].offset += f->header.len;
    }
    f->bytes = f->header.len + at;
    snprintf(f->name, sizeof f->name, "model-%05u-of-%05u.safetensors", file + 1, p->file_count);
}

void hf_plan_init(struct hf_plan *p, const struct tensor_list *tensors,
                  const struct model_config *config, enum export_dtype dtype, uint64_t shard_bytes)
{
    *p = (struct hf_plan){0};
    /* each with a scale, and two copies in each MTP layer */
    size_t most = 2 * tensors->count + 2 * (size_t)config->num_nextn_predict_layers;
    p->item = mem_alloc_array(most, sizeof *p->item);
    p->first = mem_alloc_array(tensors->count, sizeof(struct hf_item *));
    struct planner planner = {p, tensors, dtype};
    add_items(&planner, config);
    for (size_t i = 0; i < p->count; i = file_end(p, i, shard_bytes)) {
        p->file_count++;
    }
    p->file = mem_alloc_array(p->file_count, sizeof *p->file);
    size_t first = 0;
    for (uint32_t f = 0; f < p->file_count; f++) {
        size_t end = file_end(p, first, shard_bytes);
        lay_out(p, f, first, end);
        first = end;
    }
}

void hf_plan_fini(struct hf_plan *p)
{
    for (uint32_t f = 0; f < p->file_count; f++) {
        buf_fini(&p->file[f].header);
    }
    free(p->file);
    free(p->first);
    free(p->item);
    *p = (struct hf_plan){0};
}

void hf_plan_index(const struct hf_plan *p, struct buf *out)
{
    buf_printf(out,
               "{\n  \"metadata\": {\n    \"total_parameters\": %" PRIu64
               ",\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
               p->parameters, p->data_bytes);
    for (size_t i = 0; i < p->count; i++) {
        buf_printf(out, "%s\n    ", i > 0 ? "," : "");
        buf_json_text(out, p->item[i].name);
        buf_append_str(out, ": ");
        buf_json_text(out, p->file[p->item[i].file].name);
    }
    buf_append_str(out, "\n  }\n}\n");
}
