/* A Hugging Face model folder open for reading: config.json, and the tensors of all its safetensors
 * files under one roof. Their data is not looked at here. */
#ifndef TRAINER_HF_FOLDER_H
#define TRAINER_HF_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/model_config.h"
#include "trainer/safetensors.h"

#define HF_SCALE_SUFFIX "_scale_inv" /* X.weight -> X.weight_scale_inv */

struct hf_tensor {
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    bool used; /* somebody asked for it */
};
struct hf_folder {
    char *dir;                  /* owned */
    struct model_config config; /* without num_nextn_predict_layers in the file: as many MTP layers
                                   as have tensors */
    bool says_mtp;
    uint32_t block_rows, block_cols; /* that an FP8 scale covers; 128 x 128 unless config.json says
                                        otherwise */
    struct safetensors *file;        /* owned */
    size_t file_count;
    struct hf_tensor *tensor; /* owned; by name, each once */
    size_t count;
};

/* ERR_NOT_FOUND, ERR_CONFIG, ERR_CORRUPT. The error names the file, and the tensor if it is about
 * one. */
int hf_folder_open(struct hf_folder *f, const char *dir, struct err *err);
void hf_folder_close(struct hf_folder *f); /* a zeroed one is fine */
/* Marks it used. NULL when there is none. */
const struct hf_tensor *hf_folder_find(struct hf_folder *f, const char *name);

#endif
