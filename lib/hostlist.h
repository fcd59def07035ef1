/* Host lists in the form of schedulers: gpu[001-032,040],login1. Zeros in front are kept; a name
 * may have several brackets. */
#ifndef LIB_HOSTLIST_H
#define LIB_HOSTLIST_H

#include <stddef.h>

#include "lib/buf.h"
#include "lib/err.h"

#define HOSTLIST_MAX 65536u

struct hostlist {
    char **names; /* owned */
    size_t count, capacity;
};

/* Appends the names of text (separated by commas or blanks, in its order) to *h, which may be
 * zeroed. ERR_USAGE; *h is then as it was. */
int hostlist_expand(struct hostlist *h, const char *text, struct err *err);
void hostlist_fini(struct hostlist *h);
/* Appends the shortest form of the names, sorted by number, each once. */
void hostlist_compress(const char *const *names, size_t count, struct buf *out);

#endif
