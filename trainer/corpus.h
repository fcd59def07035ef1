/* One source of training text: a dataset, cut into sequences. Which of them is shown n-th is a pure
 * function of (seed, n); an epoch shows each once.
 *
 * stream     the documents one after the other, cut every sequence_length tokens (sampler.h)
 * documents  documents, drawn in a random order that the seed alone decides, are packed by groups
 *            into whole sequences (packing.h), after some were told with their middle last (fim.h);
 *            an epoch goes through the groups, and through a group's sequences in an order of its
 *            own. A group's packing is computed when it is come to, and the last one is kept: any
 *            rank can begin anywhere. */
#ifndef TRAINER_CORPUS_H
#define TRAINER_CORPUS_H

#include <stdint.h>

#include "lib/err.h"
#include "proto/data_spec.h"
#include "trainer/data.h"
#include "trainer/packing.h"
#include "trainer/sampler.h"

#define CORPUS_GROUP 16384 /* documents packed together */

struct corpus {
    struct dataset data;
    enum packing_kind kind;
    struct fim_spec fim;
    struct sampler sampler; /* windows: sequences in an epoch */
    uint32_t vocab;
    /* documents */
    uint32_t groups;
    uint64_t *before; /* owned; groups + 1: sequences in the groups before each */
    uint32_t group;   /* the one that `packing` holds; groups: none yet */
    struct packing packing;
};

/* ERR_DATA when it is too short for one sequence; ERR_CONFIG when its tokenizer has ids that are
 * not below vocab. */
int corpus_open(struct corpus *c, const char *prefix, const struct data_spec *spec, uint64_t seed,
                uint32_t sequence_length, uint32_t vocab, struct err *err);
/* Refuses, with ERR_DATA, a dataset of which no sequence can be made. */
int corpus_check_windows(const struct dataset *d, uint64_t windows, const char *prefix,
                         uint32_t sequence_length, struct err *err);
void corpus_close(struct corpus *c); /* a zeroed one is fine */
/* The n-th sequence shown, sequence_length + 1 tokens. */
int corpus_read(struct corpus *c, uint64_t n, int32_t *tokens, struct err *err);

#endif
