/* The sequences of a run: training and validation corpus, and which of their windows a step shows.
 */
#ifndef TRAINER_FEED_H
#define TRAINER_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "trainer/data.h"
#include "trainer/sampler.h"

struct feed {
    struct dataset train, valid;
    bool has_valid;
    struct sampler sampler;
    uint64_t valid_windows;
    uint32_t vocab;
};

/* ERR_DATA when a corpus is too short for one sequence; ERR_CONFIG when its tokenizer has ids that
 * are not below vocab. */
int feed_open(struct feed *f, const struct train_spec *spec, uint32_t vocab, struct err *err);
void feed_close(struct feed *f);

/* count sequences of sequence_length + 1 tokens each into tokens: positions first, first + 1, ...
 * of the run. */
int feed_train(const struct feed *f, uint64_t first, uint32_t count, int32_t *tokens,
               struct err *err);
/* The same of the validation set: members first... of its n fixed windows. */
int feed_valid(const struct feed *f, uint64_t first, uint32_t count, uint64_t n, int32_t *tokens,
               struct err *err);

#endif
