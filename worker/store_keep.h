/* Rendezvous values that the ranks of one attempt on this node have set. The coordinator keeps the
 * store in memory only, so they are said again after each registration; and as the worker may be
 * restarted in between, they are also in a file of the attempt folder. */
#ifndef WORKER_STORE_KEEP_H
#define WORKER_STORE_KEEP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/frame.h"

#define STORE_KEEP_FILE      "store"
#define STORE_KEEP_BYTES_MAX (64u * 1024u * 1024u)

struct store_keep;

/* Loads what an earlier worker kept. dir: the attempt folder, copied. */
struct store_keep *store_keep_create(const char *dir);
void store_keep_destroy(struct store_keep *keep); /* NULL is fine */

/* f: a STORE_SET request; key: of it. The same key again replaces the value. ERR_TOO_LARGE, or why
 * the file cannot be written. */
int store_keep_set(struct store_keep *keep, const struct frame *f, const char *key,
                   struct err *err);
size_t store_keep_count(const struct store_keep *keep);
/* The i-th value as a request, borrowed until the next set. */
struct frame store_keep_at(const struct store_keep *keep, size_t i);

#endif
