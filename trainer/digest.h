/* The two digests of a checkpoint's files, in one pass. */
#ifndef TRAINER_DIGEST_H
#define TRAINER_DIGEST_H

#include <stddef.h>

#include "lib/err.h"

struct digest {
    void *fast, *strong; /* owned: of the two libraries */
};

int digest_init(struct digest *d, struct err *err);
void digest_update(struct digest *d, const void *data, size_t len);
/* Lower-case hex. Once. */
void digest_final(struct digest *d, char xxh3[33], char sha256[65]);
void digest_fini(struct digest *d); /* a zeroed one is fine */

#endif
