/* The sequences of a run: its sources of training text, mixed by weight, and the validation corpus;
 * and where in the training text the run stands. */
#ifndef TRAINER_FEED_H
#define TRAINER_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "trainer/corpus.h"
#include "trainer/cursor.h"
#include "trainer/data.h"
#include "trainer/mixture.h"

struct feed {
    struct corpus *sources; /* owned */
    uint32_t source_count;
    struct mixture mixture;
    struct cursor cursor;  /* with the job file's skip list; at position 0 after feed_open */
    uint64_t train_tokens; /* of all sources */
    struct dataset valid;
    bool has_valid;
    uint64_t valid_windows;
    uint32_t sequence_length, vocab;
};

/* ERR_DATA when a corpus is too short for one sequence; ERR_CONFIG when its tokenizer, or fill in
 * the middle, has ids that are not below vocab. */
int feed_open(struct feed *f, const struct train_spec *spec, uint32_t vocab, struct err *err);
void feed_close(struct feed *f); /* a zeroed one is fine */

/* The sequences first, first + 1, ... counted from the cursor on, of sequence_length + 1 tokens
 * each. */
int feed_train(struct feed *f, uint64_t first, uint32_t count, int32_t *tokens, struct err *err);
/* Of each source: sequences shown so far. counts has source_count of them. */
void feed_shown(const struct feed *f, uint64_t *counts);
/* Sequences of the validation set, as feed_train: members first... of its n fixed windows. */
int feed_valid(const struct feed *f, uint64_t first, uint32_t count, uint64_t n, int32_t *tokens,
               struct err *err);

#endif
