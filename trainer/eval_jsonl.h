/* dstrain eval on questions: multiple choice and cloze, scored by log-likelihood. */
#ifndef TRAINER_EVAL_JSONL_H
#define TRAINER_EVAL_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/decode.h"
#include "trainer/eval.h"

/* Prints the result. */
int eval_jsonl(const struct eval_options *options, struct err *err);

/* One text scored after another; what they share at the front is computed once. */
struct scorer {
    struct decoder *decoder; /* borrowed */
    size_t positions, vocab;
    int32_t *cached; /* [positions]: tokens that the decoder holds */
    size_t cached_count;
    float *logits; /* [DECODE_ROWS * vocab] */
};
struct score {
    double log_likelihood; /* nats */
    bool greedy;           /* each token is the likeliest one */
};
void scorer_init(struct scorer *s, struct decoder *d, size_t positions, size_t vocab);
void scorer_fini(struct scorer *s);
/* Of tokens [first, count) after those before them; 1 <= first < count, count - 1 <= positions. */
struct score scorer_score(struct scorer *s, const int32_t *tokens, size_t first, size_t count);

#endif
