/* Threads that turn batches of documents into tokens. Batches come back in the order in which they
 * were given, so that the result does not depend on the threads. */
#ifndef TRAINER_PACK_WORKERS_H
#define TRAINER_PACK_WORKERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/tokenizer.h"

struct pack_document {
    size_t text_end;  /* in the batch's text; it starts where the one before ends */
    size_t ids_end;   /* in the batch's ids, filled by the worker */
    const char *path; /* borrowed; the file it is from */
    bool valid;       /* of the validation corpus */
};

struct pack_batch {
    struct buf text;
    struct pack_document *documents; /* owned */
    size_t count, capacity;
    uint64_t read_bytes;  /* of all input, when the batch was made */
    struct token_ids ids; /* of all documents; each ends with the end-of-document token */
    int rc;               /* the worker's */
    struct err err;
};

struct pack_workers;

/* frame: see tokenizer_encode. threads >= 1; fewer where the machine gives fewer. */
int pack_workers_start(struct pack_workers **out, const struct tokenizer *t, uint32_t eod,
                       bool frame, unsigned threads, struct err *err);
/* Stops the threads; what they have not done stays undone. */
void pack_workers_stop(struct pack_workers *w);

/* An empty batch to fill; NULL when all are under way: take one first. */
struct pack_batch *pack_workers_batch(struct pack_workers *w);
/* Gives the filled batch to the threads. */
void pack_workers_give(struct pack_workers *w);
/* The oldest batch that was given, once it is done; NULL when there is none. It is empty again, and
 * not to be used, after the next call of any of these. */
struct pack_batch *pack_workers_take(struct pack_workers *w);

#endif
