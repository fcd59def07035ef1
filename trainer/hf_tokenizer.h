/* The tokenizer files of an exported folder: those the run's text was packed with, or the
 * byte-level tokenizer written as a tokenizer.json that gives the same ids. */
#ifndef TRAINER_HF_TOKENIZER_H
#define TRAINER_HF_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/model_config.h"
#include "trainer/ckpt_facts.h"
#include "trainer/tokenizer.h"

enum hf_tokenizer_kind { HF_TOKENIZER_NONE, HF_TOKENIZER_BYTES, HF_TOKENIZER_FILES };
struct hf_tokenizer {
    enum hf_tokenizer_kind kind;
    /* owned; of FILES: tokenizer.json; its tokenizer_config.json, which may not be there, or NULL;
     * the folder of both and of the others, or NULL */
    char *file, *config, *folder;
};

/* choice: "bytes", "none", a tokenizer.json, or a folder with one. NULL: the first of `files`
 * (count, entries may be NULL) that is there; else, for a model that began here and has hardly more
 * tokens than there are bytes, bytes; else none. */
int hf_tokenizer_choose(struct hf_tokenizer *t, const char *choice, const char *const *files,
                        size_t count, bool began_here, const struct model_config *config,
                        struct err *err);
/* The same of a checkpoint: beside it, beside the text it was trained on, with the weights it began
 * with. */
int hf_tokenizer_of(struct hf_tokenizer *t, const char *choice, const char *ckpt_dir,
                    const struct ckpt_facts *facts, const struct model_config *config,
                    struct err *err);
/* Not of NONE. The tokenizer's eod is the eos_token of its tokenizer_config.json. */
int hf_tokenizer_open(const struct hf_tokenizer *t, struct tokenizer **out, struct err *err);
void hf_tokenizer_fini(struct hf_tokenizer *t); /* a zeroed one is fine */
/* Into folder, durably. ERR_CONFIG when it has ids that the model has not. */
int hf_tokenizer_write(const struct hf_tokenizer *t, const char *folder,
                       const struct model_config *config, struct err *err);

/* tokenizer.json of the bytes. */
void hf_tokenizer_bytes_json(struct buf *out);

#endif
