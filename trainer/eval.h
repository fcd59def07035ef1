/* dstrain eval on a packed corpus: loss, perplexity, bits per byte. */
#ifndef TRAINER_EVAL_H
#define TRAINER_EVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

struct eval_options {
    const char *ckpt, *data;
    const char *tokenizer;    /* or NULL: the checkpoint's own */
    const char *model;        /* config.json, or NULL: the checkpoint's own */
    uint64_t batches;         /* windows; 0: all */
    uint32_t sequence_length; /* 0: as in training */
    bool json;
    bool ema; /* the weights' moving average */
};

/* Prints the result. */
int eval_corpus(const struct eval_options *options, struct err *err);

#endif
