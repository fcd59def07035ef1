/* From logits to the next token. */
#ifndef TRAINER_CHOOSE_H
#define TRAINER_CHOOSE_H

#include <stddef.h>
#include <stdint.h>

struct chooser {
    double temperature; /* 0: the likeliest, the lower id at a tie */
    double top_p;       /* of the likeliest tokens whose shares first reach this, 1: of all */
    uint64_t seed;
};

size_t choose_likeliest(const float *logits, size_t n);
/* A pure function of the logits, the seed and the index of the new token in the text. May change
 * the logits. */
int32_t choose_token(const struct chooser *c, float *logits, size_t n, uint64_t index);

#endif
