/* Text files into a corpus that the trainer reads (format: data.h). Each document ends with the
 * end-of-document token. A file is one document; a longer one is cut at blank lines. Gzipped text
 * is unpacked on the way. */
#ifndef TRAINER_PACK_H
#define TRAINER_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/tokenizer.h"

#define PACK_DOCUMENT_BYTES 16384
#define PACK_THREADS_MAX    1024

struct pack_options {
    const char *const *inputs; /* paths */
    size_t input_count;
    const char *prefix;      /* PREFIX.bin, PREFIX.idx */
    uint64_t document_bytes; /* a document of this size ends at the next blank line, at twice the
                                size at any line, at four times anywhere; 0: files are never cut */
    const struct tokenizer *tokenizer;
    const char *tokenizer_name; /* what tokenizer_open made it of: it is kept beside the corpus */
    uint32_t eod;               /* ends each document */
    bool frame;                 /* also what the tokenizer's file puts around a text */
    unsigned threads;           /* 0: as many as there are cores; the output is the same */
    double valid_share; /* of the bytes; these documents go to PREFIX-valid.bin/.idx, spread evenly;
                           0: none */
};
struct pack_counts {
    uint64_t documents, tokens;
};

/* Shows a progress bar on a terminal. All or nothing: the outputs appear under their names when
 * everything was written and fsynced. */
int pack_run(const struct pack_options *options, struct pack_counts *train,
             struct pack_counts *valid, struct err *err);

#endif
