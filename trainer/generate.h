/* dstrain generate: text from a checkpoint. */
#ifndef TRAINER_GENERATE_H
#define TRAINER_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/choose.h"
#include "trainer/decode.h"

struct generate_options {
    const char *ckpt;
    const char *prompt;     /* text, or NULL: */
    const char *prompt_ids; /* token ids with spaces or commas between; out come ids as well */
    const char *tokenizer;  /* or NULL: the checkpoint's own */
    const char *model;      /* config.json, or NULL: the checkpoint's own */
    uint64_t tokens;        /* new ones, at most */
    struct chooser chooser;
    bool speculate;
    bool ema; /* the weights' moving average */
};

/* Writes the text to stdout as it comes, then the speed to stderr. */
int generate(const struct generate_options *options, struct err *err);

struct generation {
    const struct chooser *chooser;
    size_t vocab, positions; /* of the decoder */
    uint64_t tokens;         /* new ones, at most */
    int64_t end;             /* the token that ends the text, -1: none */
    bool speculate;
    /* Gets each token but the end; false stops. */
    bool (*emit)(void *ctx, int32_t token);
    void *ctx;
    uint64_t drafts, accepted, unguessed; /* out; as of struct speculation */
};
/* The loop: count >= 1 tokens of prompt into an empty decoder, then new tokens. Returns how many,
 * the end included. */
uint64_t generate_tokens(struct generation *g, struct decoder *d, const int32_t *prompt,
                         size_t count);

#endif
