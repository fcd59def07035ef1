/* Fill in the middle: a document is told as <begin> prefix <hole> suffix <end> middle, its last
 * token, which ends the document, staying last (PSM; Bavarian et al. 2022; DeepSeek-V3 report,
 * section 4.1: at the level of documents, before packing, rate 0.1). Which documents, and where
 * they are cut, is a pure function of (seed, document). */
#ifndef TRAINER_FIM_H
#define TRAINER_FIM_H

#include <stdint.h>

#include "proto/data_spec.h"

#define FIM_TOKENS 3 /* that a document grows by */

/* How one document is told. */
struct fim_cut {
    int told;      /* 0: as it stands, and the rest is not set */
    uint64_t body; /* tokens without the last */
    uint64_t a, b; /* the middle is [a, b); a <= b <= body */
};
struct fim_cut fim_cut(const struct fim_spec *fim, uint64_t seed, uint64_t document,
                       uint64_t tokens);

/* One stretch of a told document: `count` tokens from `first` of the document on, or, where token
 * is not negative, that one token. */
struct fim_stretch {
    uint64_t first, count;
    int32_t token;
};
/* The stretch that holds token `offset` of the told document, from there to its end. */
struct fim_stretch fim_stretch(const struct fim_spec *fim, const struct fim_cut *cut,
                               uint64_t tokens, uint64_t offset);

#endif
