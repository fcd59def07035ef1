/* Speculative decoding with the model's own MTP module: it guesses the token after the next one,
 * and the main model computes both in one pass. A right guess gives two tokens for one reading of
 * the weights; a wrong one is taken back. */
#ifndef TRAINER_SPECULATE_H
#define TRAINER_SPECULATE_H

#include "trainer/choose.h"
#include "trainer/decode.h"

struct speculation {
    struct decoder *decoder;       /* borrowed */
    const struct chooser *chooser; /* borrowed */
    size_t vocab;
    float *logits;                        /* borrowed; [2 * vocab] */
    int32_t draft;                        /* the guess of the token after the next one */
    uint64_t drafts, accepted, unguessed; /* unguessed: tokens made while it did not pay */
    /* Does it pay? The fastest pass of each kind so far, in seconds; 0: none yet. */
    double plain, guessed;
    uint64_t tried, right; /* of the guesses since that was last asked */
    uint64_t rest, pause;  /* tokens still to make without guesses; how many next time */
    uint64_t steps;
};

/* next: what follows the rows of the last decoder_forward, all of which are right. Guesses. */
void speculate_draft(struct speculation *s, const int32_t *next, size_t count);
/* One pass over `last`, the newest token, and the draft. index: of the token to come. Returns how
 * many tokens of out are new, 1 or 2: those that plain decoding gives. A guess costs time: where
 * guesses do not make the text come faster, as measured, it does without them for a while. */
size_t speculate_step(struct speculation *s, int32_t last, uint64_t index, int32_t out[2]);

#endif
