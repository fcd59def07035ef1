/* The tensors of a model by their published names, shapes and kinds (reference deepseek-v3 8.2),
 * from its configuration alone: for files of any size, without the memory of a model. What the
 * model itself holds is the same list (a unit test sees to it). */
#ifndef TRAINER_TENSOR_LIST_H
#define TRAINER_TENSOR_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/model_config.h"

enum tensor_kind {
    TENSOR_RECIPE, /* a Linear of the FP8 recipe */
    TENSOR_HIGH,   /* embedding, head, eh_proj: BF16 at the least */
    TENSOR_GATE,   /* a router */
    TENSOR_NORM,
    TENSOR_BIAS, /* a router's balancing bias: FP32 always */
};

#define TENSOR_NAME_BYTES 128

struct tensor {
    char name[TENSOR_NAME_BYTES];
    uint32_t rows, cols; /* a vector has cols 1 */
    bool is_vector;
    enum tensor_kind kind;
    int32_t layer;  /* -1: of none */
    int32_t expert; /* -1: of none */
};
struct tensor_list {
    struct tensor *item; /* owned; in the order of the model */
    size_t count, capacity;
    uint32_t *by_name; /* owned; indices of items, by name */
};

/* MTP module k is layer num_hidden_layers + k; its embedding and head are the main model's and not
 * listed twice. */
void tensor_list_init(struct tensor_list *l, const struct model_config *config);
void tensor_list_fini(struct tensor_list *l);
/* NULL when there is none of that name. */
const struct tensor *tensor_list_find(const struct tensor_list *l, const char *name);

static inline uint64_t tensor_elements(const struct tensor *t)
{
    return (uint64_t)t->rows * t->cols;
}

#endif
