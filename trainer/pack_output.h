/* A corpus (format: data.h) being written: under a temporary name until it is whole. */
#ifndef TRAINER_PACK_OUTPUT_H
#define TRAINER_PACK_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "trainer/data.h"

struct pack_output {
    char *bin_path, *bin_tmp, *idx_path; /* owned */
    int fd;
    enum data_type type;
    struct buf pending; /* bytes of .bin not written yet */
    struct buf lengths; /* i32 each */
    uint64_t documents, tokens;
};

/* PREFIX SUFFIX .bin and .idx, in a folder that is made where it is missing; every id is below
 * vocab. fini is due also when it fails. */
int pack_output_open(struct pack_output *o, const char *prefix, const char *suffix, uint32_t vocab,
                     struct err *err);
/* A document; count <= INT32_MAX. */
int pack_output_add(struct pack_output *o, const uint32_t *ids, size_t count, struct err *err);
/* Removes the index of an older corpus of that name: it must not meet the new .bin. */
int pack_output_retract(const struct pack_output *o, struct err *err);
/* After that: writes the rest and the index, and makes both durable. */
int pack_output_commit(struct pack_output *o, struct err *err);
/* Removes what was not committed; a zeroed one is fine. */
void pack_output_fini(struct pack_output *o);

#endif
