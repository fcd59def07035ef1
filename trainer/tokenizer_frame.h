/* The post-processor of a tokenizer.json, as far as it puts tokens around a text: ByteLevel (none),
 * TemplateProcessing for a single text, and Sequence of them. */
#ifndef TRAINER_TOKENIZER_FRAME_H
#define TRAINER_TOKENIZER_FRAME_H

#include "lib/err.h"
#include "trainer/tokenizer.h"
#include "trainer/tokenizer_at.h"

/* A zeroed one puts nothing. */
struct frame {
    struct token_ids before, after;
};

/* at: the file's post_processor. vocab: all ids are below. ERR_DATA. */
int frame_load(struct frame *f, const struct json_at *at, uint32_t vocab, struct err *err);
void frame_fini(struct frame *f);

#endif
